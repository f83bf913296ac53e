#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

#include "../sample_prior.h"
#include "launch.h"
#include "sample_prior_kernel.h"

namespace maskbench {
namespace {

std::tuple<at::Tensor, at::Tensor> sample_prior(const at::Tensor& rng_state, int64_t batch, int64_t gaussian_dim,
                                                int64_t categories, int64_t first_row) {
  check_sample_prior(rng_state, batch, gaussian_dim, categories, first_row);
  const c10::cuda::CUDAGuard guard(rng_state.device());
  const at::Tensor state = rng_state.contiguous();
  const auto options = rng_state.options().dtype(at::kFloat);
  at::Tensor gaussian = at::empty({batch, gaussian_dim}, options);
  at::Tensor one_hot = at::empty({batch, categories}, options);

  const int64_t grid = grid_size(batch * quads_of_row(gaussian_dim, categories));
  const auto launch = [&](auto kernel, auto... arguments) {
    kernel<<<grid, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(arguments...);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  };
  launch_draw_rows(state.const_data_ptr<int64_t>(), static_cast<uint64_t>(first_row), batch, gaussian_dim, categories,
                   grid, gaussian.mutable_data_ptr<float>(), one_hot.mutable_data_ptr<float>(), launch);
  return {gaussian, one_hot};
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CUDA, m) { m.impl("sample_prior", &sample_prior); }

}  // namespace maskbench
