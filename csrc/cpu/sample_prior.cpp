#include "../sample_prior.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "simd/kernels.h"

namespace maskbench {
namespace {

constexpr int64_t kPriorGrain = 16'384;  // numbers drawn by a thread before it pays to wake another

std::tuple<at::Tensor, at::Tensor> sample_prior(const at::Tensor& rng_state, int64_t batch, int64_t gaussian_dim,
                                                int64_t categories, int64_t first_row) {
  check_sample_prior(rng_state, batch, gaussian_dim, categories, first_row);
  const auto options = rng_state.options().dtype(at::kFloat);
  at::Tensor gaussian = at::empty({batch, gaussian_dim}, options);
  at::Tensor one_hot = at::empty({batch, categories}, options);
  const auto state = rng_state.accessor<const int64_t, 1>();
  const PriorDraw draw = {static_cast<uint64_t>(state[0]),
                          static_cast<uint64_t>(state[1]),
                          static_cast<uint64_t>(first_row),
                          gaussian_dim,
                          categories,
                          gaussian.mutable_data_ptr<float>(),
                          one_hot.mutable_data_ptr<float>()};
  const int64_t grain = std::max<int64_t>(1, kPriorGrain / (gaussian_dim + categories));
  at::parallel_for(0, batch, grain, [&](int64_t begin, int64_t end) { kernels().draw_rows(draw, begin, end); });
  return {gaussian, one_hot};
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CPU, m) { m.impl("sample_prior", &sample_prior); }

}  // namespace maskbench
