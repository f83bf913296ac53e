// What launches share with their device code, and tests/cuda_on_cpu.cpp with both: no CUDA header.
#pragma once

#include <cstdint>

namespace maskbench {

constexpr int kThreads = 256;  // of a block, in every kernel

// Blocks for a grid-stride loop: as many as the work asks for, and no more than `most`.
constexpr int64_t blocks_for(int64_t work, int64_t most) {
  const int64_t blocks = (work + kThreads - 1) / kThreads;
  return blocks < most ? blocks : most;
}

}  // namespace maskbench
