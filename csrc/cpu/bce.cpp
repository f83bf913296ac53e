#include "../bce.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "simd/kernels.h"

namespace maskbench {
namespace {

constexpr int64_t kChunk = 512;    // logits summed in their own precision; such sums are added in double, in order,
                                   // so the result does not depend on the number of threads
constexpr int64_t kBceGrain = 32;  // chunks done by a thread before it pays to wake another

std::tuple<at::Tensor, at::Tensor> bce_forward(const at::Tensor& real_logits,
                                               const std::optional<at::Tensor>& fake_logits) {
  check_bce(real_logits, fake_logits);
  const int64_t parts = fake_logits ? 2 : 1, rows = real_logits.size(1), count = real_logits.numel();
  const at::Tensor real = real_logits.contiguous();
  const at::Tensor fake = fake_logits ? fake_logits->contiguous() : real;
  at::Tensor loss = at::empty({}, real.options());
  at::Tensor gradients = at::empty({parts, real.size(0), rows}, real.options());

  AT_DISPATCH_FLOATING_TYPES(real.scalar_type(), "bce_forward", [&] {
    const scalar_t* logits[] = {real.const_data_ptr<scalar_t>(), fake.const_data_ptr<scalar_t>()};
    scalar_t* gradient = gradients.mutable_data_ptr<scalar_t>();
    const int64_t chunks = (count + kChunk - 1) / kChunk;
    std::vector<double> sums(parts * chunks);
    at::parallel_for(0, parts * chunks, kBceGrain, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / chunks, start = task % chunks * kChunk;
        const scalar_t sign = part == 0 ? -1 : 1;
        sums[task] = kernels_of<scalar_t>().bce(logits[part] + start, sign, sign / static_cast<scalar_t>(rows),
                                                std::min(kChunk, count - start), gradient + part * count + start);
      }
    });
    double total = 0;
    for (const double sum : sums) total += sum;
    *loss.mutable_data_ptr<scalar_t>() = static_cast<scalar_t>(total / static_cast<double>(rows));
  });
  return {loss, gradients};
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CPU, m) { m.impl("bce_forward", &bce_forward); }

}  // namespace maskbench
