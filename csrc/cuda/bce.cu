#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

#include "../bce.h"
#include "bce_kernel.h"
#include "launch.h"

namespace maskbench {
namespace {

std::tuple<at::Tensor, at::Tensor> bce_forward(const at::Tensor& real_logits,
                                               const std::optional<at::Tensor>& fake_logits) {
  check_bce(real_logits, fake_logits);
  const c10::cuda::CUDAGuard guard(real_logits.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const int64_t parts = fake_logits ? 2 : 1, rows = real_logits.size(1), count = real_logits.numel();
  const at::Tensor real = real_logits.contiguous();
  const at::Tensor fake = fake_logits ? fake_logits->contiguous() : real;
  at::Tensor loss = at::empty({}, real.options());
  at::Tensor gradients = at::empty({parts, real.size(0), rows}, real.options());

  const int64_t grid = grid_size(parts * count);
  at::Tensor sums, ticket;
  if (grid > 1) {
    sums = at::empty({grid}, real.options().dtype(at::kDouble));
    ticket = at::empty({1}, real.options().dtype(at::kInt));
  }
  AT_DISPATCH_FLOATING_TYPES(real.scalar_type(), "bce_forward", [&] {
    const auto zero = [&](void* memory, size_t bytes) { C10_CUDA_CHECK(cudaMemsetAsync(memory, 0, bytes, stream)); };
    const auto launch = [&](auto kernel, auto... arguments) {
      kernel<<<grid, kThreads, 0, stream>>>(arguments...);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    };
    launch_bce_forward(real.const_data_ptr<scalar_t>(), fake.const_data_ptr<scalar_t>(), count, parts, rows, grid,
                       gradients.mutable_data_ptr<scalar_t>(), loss.mutable_data_ptr<scalar_t>(),
                       grid > 1 ? sums.mutable_data_ptr<double>() : nullptr,
                       grid > 1 ? static_cast<unsigned int*>(ticket.mutable_data_ptr()) : nullptr, zero, launch);
  });
  return {loss, gradients};
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CUDA, m) { m.impl("bce_forward", &bce_forward); }

}  // namespace maskbench
