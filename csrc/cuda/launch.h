#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>

#include <cstdint>

#include "threads.h"

namespace maskbench {

// Blocks for a grid-stride loop on the current device: as many as the work asks for, no more than fill it. That all of
// them run at once, tests/test_device_code.py sees by their registers; double losses, which need more, take two waves.
inline int64_t grid_size(int64_t work) {
  int processors = 0, threads_per_processor = 0;
  const int device = c10::cuda::current_device();
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&threads_per_processor, cudaDevAttrMaxThreadsPerMultiProcessor, device));
  return blocks_for(work, static_cast<int64_t>(processors) * (threads_per_processor / kThreads));
}

}  // namespace maskbench
