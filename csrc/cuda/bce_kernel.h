// Device code of the losses and what it is launched with: tests/cuda_on_cpu.cpp compiles it without CUDA.
#pragma once

#include <cstdint>

#include "../bce_math.h"
#include "threads.h"

namespace maskbench {
namespace {

constexpr int kWarps = kThreads / 32;

// Sum over the block, in an order of its own that never changes; the first thread gets it. Between two sums the block
// synchronises.
__device__ double block_sum(double value) {
  __shared__ double warp_sums[kWarps];
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xFFFFFFFF, value, offset);
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

// zero(memory, bytes) and launch(kernel, arguments...), in this order; several blocks need a sum each, and a ticket.
template <typename T, typename Zero, typename Launch>
void launch_bce_forward(const T* real, const T* fake, int64_t count, int64_t parts, int64_t rows, int64_t grid,
                        T* gradients, T* loss, double* sums, unsigned int* ticket, Zero zero, Launch launch) {
  if (grid > 1) zero(ticket, sizeof *ticket);
  launch(bce_forward_kernel<T>, real, fake, count, parts, T{1} / static_cast<T>(rows), static_cast<double>(rows),
         gradients, loss, sums, ticket);
}

}  // namespace
}  // namespace maskbench
