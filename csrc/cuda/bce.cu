#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

#include "../bce.h"
#include "../bce_math.h"
#include "launch.h"

namespace maskbench {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// Sum over the block, in an order of its own that never changes; the first thread gets it.
__device__ double block_sum(double value) {
  __shared__ double warp_sums[kWarps];
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xFFFFFFFF, value, offset);
  __syncthreads();  // an earlier sum may still be read
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0) {
    for (const double warp_sum : warp_sums) sum += warp_sum;
  }
  return sum;
}

// Losses, gradients and their sum in one launch. Blocks leave their sums behind and take a ticket; the last one adds
// them up in order, so the loss is the same in every run. A single block needs neither sums nor ticket.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    bce_forward_kernel(const T* real, const T* fake, int64_t count, int64_t parts, T scale, double rows, T* gradients,
                       T* loss, double* sums, unsigned int* ticket) {
  double sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < parts * count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const T sign = i < count ? -1 : 1;
    const T logit = i < count ? real[i] : fake[i - count];
    T element, derivative;
    bce(sign * logit, element, derivative);
    sum += element;
    gradients[i] = sign * scale * derivative;
  }
  sum = block_sum(sum);
  if (gridDim.x == 1) {
    if (threadIdx.x == 0) *loss = static_cast<T>(sum / rows);
    return;
  }

  __shared__ bool last;
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = sum;
    __threadfence();  // the sum is there before the ticket says so
    last = atomicAdd(ticket, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  double total = 0;
  for (unsigned int i = threadIdx.x; i < gridDim.x; i += kThreads) total += static_cast<volatile double*>(sums)[i];
  total = block_sum(total);
  if (threadIdx.x == 0) *loss = static_cast<T>(total / rows);
}

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

  const int64_t grid = grid_size(parts * count, kThreads);
  at::Tensor sums, ticket;
  if (grid > 1) {
    sums = at::empty({grid}, real.options().dtype(at::kDouble));
    ticket = at::empty({1}, real.options().dtype(at::kInt));
    C10_CUDA_CHECK(cudaMemsetAsync(ticket.mutable_data_ptr(), 0, sizeof(int32_t), stream));
  }
  AT_DISPATCH_FLOATING_TYPES(real.scalar_type(), "bce_forward", [&] {
    bce_forward_kernel<scalar_t><<<grid, kThreads, 0, stream>>>(
        real.const_data_ptr<scalar_t>(), fake.const_data_ptr<scalar_t>(), count, parts,
        scalar_t{1} / static_cast<scalar_t>(rows), static_cast<double>(rows), gradients.mutable_data_ptr<scalar_t>(),
        loss.mutable_data_ptr<scalar_t>(), grid > 1 ? sums.mutable_data_ptr<double>() : nullptr,
        grid > 1 ? static_cast<unsigned int*>(ticket.mutable_data_ptr()) : nullptr);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {loss, gradients};
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CUDA, m) { m.impl("bce_forward", &bce_forward); }

}  // namespace maskbench
