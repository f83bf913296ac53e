// Device code of the draws and what it is launched with: tests/cuda_on_cpu.cpp compiles it without CUDA.
#pragma once

#include <cstdint>

#include "../philox.h"
#include "threads.h"

namespace maskbench {
namespace {

MASKBENCH_INLINE int64_t quads_of_row(int64_t gaussian_dim, int64_t categories) {
  return static_cast<int64_t>(normal_blocks(gaussian_dim)) + (categories + 3) / 4;
}

// Four numbers of a row, from `column` on: one 16-byte store where rows start on such a boundary.
__device__ void store(float* row, int64_t column, int64_t width, float4 numbers) {
  if (width % 4 == 0) {
    __stwb(reinterpret_cast<float4*>(row + column), numbers);  // nvcc splits a plain assignment into four stores
    return;
  }
  const float each[] = {numbers.x, numbers.y, numbers.z, numbers.w};
  for (int i = 0; i < 4; ++i) {
    if (column + i < width) row[column + i] = each[i];
  }
}

// A row is a sequence of quads, first of normals and then of the one-hot part; a thread strides over the quads of all
// rows. Row and quad advance together, as one 64-bit division a quad would cost as much as its random numbers.
__global__ void __launch_bounds__(kThreads)
    draw_rows(const int64_t* rng_state, uint64_t first_row, int64_t batch, int64_t gaussian_dim, int64_t categories,
              int64_t row_step, int64_t quad_step, float* gaussian, float* one_hot) {
  const Stream<> stream(static_cast<uint64_t>(rng_state[0]), static_cast<uint64_t>(rng_state[1]));
  const int64_t blocks = static_cast<int64_t>(normal_blocks(gaussian_dim));
  const int64_t quads = quads_of_row(gaussian_dim, categories);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  int64_t row = thread / quads, quad = thread % quads;
  while (row < batch) {
    const uint64_t first_block = (first_row + row) * (blocks + 1);
    const bool normal = quad < blocks;
    const Words<Scalar> words = stream.words(first_block + (normal ? quad : blocks));
    const int64_t width = normal ? gaussian_dim : categories;
    const int64_t column = 4 * (normal ? quad : quad - blocks);
    float4 numbers;
    if (normal) {
      box_muller(words.w0, words.w1, numbers.x, numbers.y);
      box_muller(words.w2, words.w3, numbers.z, numbers.w);
    } else {
      const int64_t hot = category(words.w0, categories) - column;
      numbers = make_float4(hot == 0, hot == 1, hot == 2, hot == 3);
    }
    store((normal ? gaussian : one_hot) + row * width, column, width, numbers);
    row += row_step;
    quad += quad_step;
    if (quad >= quads) {
      quad -= quads;
      ++row;
    }
  }
}

// launch(kernel, arguments...).
template <typename Launch>
void launch_draw_rows(const int64_t* rng_state, uint64_t first_row, int64_t batch, int64_t gaussian_dim,
                      int64_t categories, int64_t grid, float* gaussian, float* one_hot, Launch launch) {
  const int64_t threads = grid * kThreads, quads = quads_of_row(gaussian_dim, categories);
  launch(draw_rows, rng_state, first_row, batch, gaussian_dim, categories, threads / quads, threads % quads, gaussian,
         one_hot);
}

}  // namespace
}  // namespace maskbench
