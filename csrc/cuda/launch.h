#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>

#include <algorithm>
#include <cstdint>

namespace maskbench {

// Blocks for a grid-stride loop on the current device: as many as the work asks for, no more than fill it.
inline int64_t grid_size(int64_t work, int64_t threads) {
  int processors = 0, threads_per_processor = 0;
  const int device = c10::cuda::current_device();
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&threads_per_processor, cudaDevAttrMaxThreadsPerMultiProcessor, device));
  return std::min<int64_t>((work + threads - 1) / threads, processors * (threads_per_processor / threads));
}

}  // namespace maskbench
