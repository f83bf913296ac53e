// What the kernels use of CUDA's device language, on the host: a coroutine for each CUDA thread of a block, the blocks
// one after another in any order. Shared memory is static, since only one block lives at a time. Coroutines change
// places where they wait, hundreds of times faster than threads of the system would. To ThreadSanitizer (WATCHED) each
// is a thread, and what two of them do is ordered by barriers alone.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "threads.h"

#ifdef WATCHED
#include <sanitizer/tsan_interface.h>
#define UNWATCHED __attribute__((no_sanitize("thread"), noinline))
#else
#define UNWATCHED
inline void* __tsan_get_current_fiber() { return nullptr; }
inline void* __tsan_create_fiber(unsigned int) { return nullptr; }
inline void __tsan_destroy_fiber(void*) {}
inline void __tsan_switch_to_fiber(void*, unsigned int) {}
inline void __tsan_acquire(void*) {}
inline void __tsan_release(void*) {}
constexpr unsigned int __tsan_switch_to_fiber_no_sync = 1;
#endif

#define __device__
#define __global__
#define __launch_bounds__(threads)
#define __shared__ static

struct Index {
  unsigned int x;
};
inline Index threadIdx, blockIdx, gridDim;

struct Thread {
  ucontext_t context;
  void* fiber;
  unsigned int block;  // where it is
  alignas(16) char stack[1 << 16];
};
inline Thread threads[maskbench::kThreads + 1];  // the last is the host's own
constexpr unsigned int kHost = maskbench::kThreads;
inline unsigned int ended_threads;
inline unsigned int waited;  // how often, one after another, a thread had to go on waiting

// What a GPU does not say: a kernel that may hang there, or fail, ends the process here.
UNWATCHED inline void require(bool right, const char* otherwise) {
  if (right) return;
  std::fprintf(stderr, "%s\n", otherwise);
  std::abort();
}

UNWATCHED inline void go_on_with(unsigned int next) {
  Thread& before = threads[threadIdx.x];
  before.block = blockIdx.x;
  threadIdx.x = next;
  blockIdx.x = threads[next].block;
  __tsan_switch_to_fiber(threads[next].fiber, __tsan_switch_to_fiber_no_sync);
  swapcontext(&before.context, &threads[next].context);
}

UNWATCHED inline void begin() {
  ended_threads = 0;
  threadIdx.x = kHost;
  go_on_with(0);
}

UNWATCHED inline void enter(int64_t block) { blockIdx.x = static_cast<unsigned int>(block); }

// Never comes back: the others go on, and the host when all have ended.
UNWATCHED inline void end() {
  ++ended_threads;
  while (true) go_on_with(ended_threads == maskbench::kThreads ? kHost : (threadIdx.x + 1) % maskbench::kThreads);
}

class Barrier {
 public:
  explicit constexpr Barrier(unsigned int size) : size(size) {}

  // In each of so many threads, one after another, on the same line of the kernel.
  UNWATCHED void wait(int line) {
    require(arrived == 0 || line == place, "threads meet at different barriers");
    place = line;
    waited = 0;
    const unsigned int mine = rounds;
    __tsan_release(&passed[mine % 2]);
    if (++arrived == size) {
      arrived = 0;
      ++rounds;
    }
    while (rounds == mine) {
      require(++waited <= maskbench::kThreads, "threads wait for others that never come");
      go_on_with((threadIdx.x + 1) % maskbench::kThreads);
    }
    waited = 0;
    __tsan_acquire(&passed[mine % 2]);  // not what others did since, who may be at the next round
  }

 private:
  unsigned int size, arrived = 0, rounds = 0;
  int place = 0;
  char passed[2] = {};
};

inline Barrier block_barrier(maskbench::kThreads);
struct Warp {
  Barrier barrier{32};
  double lanes[32];
};
inline Warp warps[maskbench::kThreads / 32];

inline void __syncthreads(int line = __builtin_LINE()) { block_barrier.wait(line); }
inline void __threadfence() {}  // the next block begins when this one is done

inline double __shfl_down_sync(unsigned int mask, double value, int offset, int line = __builtin_LINE()) {
  require(mask == 0xFFFFFFFF, "a shuffle is not of the full mask");
  Warp& warp = warps[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  warp.lanes[lane] = value;
  warp.barrier.wait(line);
  const double other = lane + offset < 32 ? warp.lanes[lane + offset] : value;
  warp.barrier.wait(line);
  return other;
}

inline unsigned int atomicAdd(unsigned int* address, unsigned int value) {
  return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}

struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline void __stwb(float4* address, float4 value) {
  require(reinterpret_cast<uintptr_t>(address) % 16 == 0, "a store of 16 bytes is not at a multiple of them");
  *address = value;
}

// kernel() in every thread of every block of these, of a grid of so many.
template <typename Kernel>
void launch(int64_t grid, const int64_t* blocks, int64_t count, Kernel kernel) {
  static struct {
    const int64_t* blocks;
    int64_t count;
    Kernel* kernel;
  } work;
  static char begun, ended;
  const auto run = [] {
    __tsan_acquire(&begun);
    for (int64_t i = 0; i < work.count; ++i) {
      enter(work.blocks[i]);
      (*work.kernel)();
      __syncthreads();
    }
    __tsan_release(&ended);
    end();
  };
  work = {blocks, count, &kernel};
  gridDim.x = static_cast<unsigned int>(grid);
  for (unsigned int thread = 0; thread < kHost; ++thread) {
    ucontext_t& context = threads[thread].context;
    getcontext(&context);
    context.uc_stack.ss_sp = threads[thread].stack;
    context.uc_stack.ss_size = sizeof threads[thread].stack;
    makecontext(&context, run, 0);
    threads[thread].fiber = __tsan_create_fiber(0);
  }
  threads[kHost].fiber = __tsan_get_current_fiber();
  __tsan_release(&begun);
  begin();
  __tsan_acquire(&ended);
  for (unsigned int thread = 0; thread < kHost; ++thread) __tsan_destroy_fiber(threads[thread].fiber);
}
