// What the kernels use of CUDA's device language, on the host: a thread for each CUDA thread of a block, the blocks one
// after another in any order. Shared memory is static, since only one block lives at a time.
#pragma once

#include <atomic>
#include <barrier>
#include <cstdint>
#include <thread>
#include <vector>

#include "threads.h"

#define __device__
#define __global__
#define __launch_bounds__(threads)
#define __shared__ static

struct Index {
  unsigned int x;
};
inline thread_local Index threadIdx, blockIdx;
inline Index gridDim;

inline std::barrier<> block_barrier(maskbench::kThreads);
struct Warp {
  std::barrier<> barrier{32};
  double lanes[32];
};
inline Warp warps[maskbench::kThreads / 32];

inline void __syncthreads() { block_barrier.arrive_and_wait(); }
inline void __threadfence() {}  // the next block begins when this one is done

inline double __shfl_down_sync(unsigned int, double value, int offset) {
  Warp& warp = warps[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  warp.lanes[lane] = value;
  warp.barrier.arrive_and_wait();
  const double other = lane + offset < 32 ? warp.lanes[lane + offset] : value;
  warp.barrier.arrive_and_wait();
  return other;
}

inline unsigned int atomicAdd(unsigned int* address, unsigned int value) {
  return std::atomic_ref<unsigned int>(*address).fetch_add(value);
}

struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline void __stwb(float4* address, float4 value) { *address = value; }

// kernel() in every thread of every block of `blocks`, of a grid of so many.
template <typename Kernel>
void launch(int64_t grid, const std::vector<int64_t>& blocks, Kernel kernel) {
  gridDim.x = static_cast<unsigned int>(grid);
  std::vector<std::thread> threads;
  for (unsigned int thread = 0; thread < maskbench::kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      threadIdx.x = thread;
      for (const int64_t block : blocks) {
        blockIdx.x = static_cast<unsigned int>(block);
        kernel();
        __syncthreads();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}
