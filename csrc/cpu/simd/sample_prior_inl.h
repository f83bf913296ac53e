// The draws of the priors.
#pragma once

#include <cstring>

#include "../../philox.h"
#include "sample_prior.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pairs of 32-bit words are stored as one of 64 bits");

namespace maskbench {
namespace {

constexpr int kBlocks = 32;  // drawn at a time: enough to fill the vectors, and 96 blocks, 384 normals, divide evenly

// words[j][i] is word j of the block first + i * step.
inline void fill_words(const Stream<Isa>& stream, uint64_t first, uint64_t step, uint32_t (&words)[4][kBlocks]) {
  constexpr int lanes = sizeof(Isa::Lanes) / sizeof(uint64_t);
  const auto store = [](uint32_t* out, Isa::Lanes even, Isa::Lanes odd) {
    const Isa::Lanes both = (even & 0xFFFFFFFF) | (odd << 32);
    std::memcpy(out, &both, sizeof both);
  };
  Isa::Lanes block = Isa::index() * (2 * step) + first;
  for (int i = 0; i < kBlocks; i += 2 * lanes, block += 2 * lanes * step) {
    const Words<Isa> even = stream.words(block);
    const Words<Isa> odd = stream.words(block + step);
    store(words[0] + i, even.w0, odd.w0);
    store(words[1] + i, even.w1, odd.w1);
    store(words[2] + i, even.w2, odd.w2);
    store(words[3] + i, even.w3, odd.w3);
  }
}

// 4 * kBlocks normals from consecutive blocks.
inline void draw_normals(const Stream<Isa>& stream, uint64_t first_block, float* normals) {
  uint32_t words[4][kBlocks];
  fill_words(stream, first_block, 1, words);
#pragma omp simd
  for (int i = 0; i < kBlocks; ++i) {
    box_muller(words[0][i], words[1][i], normals[4 * i], normals[4 * i + 1]);
    box_muller(words[2][i], words[3][i], normals[4 * i + 2], normals[4 * i + 3]);
  }
}

void draw_rows(const PriorDraw& draw, int64_t begin, int64_t end) {
  const Stream<Isa> stream(draw.seed, draw.offset);
  const uint64_t blocks = normal_blocks(draw.gaussian_dim);
  for (int64_t row = begin; row < end; ++row) {
    const uint64_t first_block = (draw.first_row + row) * (blocks + 1);
    float* gaussian = draw.gaussian + row * draw.gaussian_dim;
    int64_t column = 0;
    for (; column + 4 * kBlocks <= draw.gaussian_dim; column += 4 * kBlocks) {
      draw_normals(stream, first_block + column / 4, gaussian + column);
    }
    if (column < draw.gaussian_dim) {
      float rest[4 * kBlocks];
      draw_normals(stream, first_block + column / 4, rest);
      std::memcpy(gaussian + column, rest, (draw.gaussian_dim - column) * sizeof(float));
    }
  }

  std::memset(draw.one_hot + begin * draw.categories, 0, (end - begin) * draw.categories * sizeof(float));
  for (int64_t row = begin; row < end; row += kBlocks) {
    uint32_t words[4][kBlocks];
    fill_words(stream, (draw.first_row + row) * (blocks + 1) + blocks, blocks + 1, words);
    for (int64_t i = 0; i < kBlocks && row + i < end; ++i) {
      draw.one_hot[(row + i) * draw.categories + category(words[0][i], draw.categories)] = 1.0f;
    }
  }
}

}  // namespace
}  // namespace maskbench
