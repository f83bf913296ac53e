// The random stream, written once for host and device: counters in, words, uniforms and normals out.
//
// Both compilers must give the same bits, so every rounding is spelt out: fused multiply-adds are explicit, none is
// formed behind our back (-ffp-contract=off, --fmad=false), square roots and conversions are correctly rounded, and
// ln, sin and cos are the polynomials below (minimax fits, coefficients rounded to float).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define MASKBENCH_INLINE __host__ __device__ __forceinline__
#define MASKBENCH_UNROLL _Pragma("unroll")
#else
#define MASKBENCH_INLINE inline __attribute__((always_inline))
#define MASKBENCH_UNROLL _Pragma("GCC unroll 10")
#endif

namespace maskbench {

MASKBENCH_INLINE float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

MASKBENCH_INLINE uint32_t bits_from_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// How 32-bit words are held: each in the low half of a 64-bit lane, the high half holding leftovers nobody reads. The
// CPU kernels bring vectors of such lanes, whose one multiplication instruction wants them so.
struct Scalar {
  using Lanes = uint64_t;
  static MASKBENCH_INLINE Lanes multiply(Lanes words, uint32_t factor) { return (words & 0xFFFFFFFF) * factor; }
};

template <typename Isa>
struct Words {
  typename Isa::Lanes w0, w1, w2, w3;
};

// One stream: the words of a block are a function of (seed, offset, block) alone. The generator is the 10-round
// Philox4x32 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).
template <typename Isa = Scalar>
struct Stream {
  using Lanes = typename Isa::Lanes;

  MASKBENCH_INLINE Stream(uint64_t seed, uint64_t offset)
      : offset_low(Lanes{} + (offset & 0xFFFFFFFF)), offset_high(Lanes{} + (offset >> 32)) {
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    MASKBENCH_UNROLL
    for (int round = 0; round < 10; ++round) {
      keys0[round] = Lanes{} + uint64_t{key0};
      keys1[round] = Lanes{} + uint64_t{key1};
      key0 += 0x9E3779B9;  // golden ratio
      key1 += 0xBB67AE85;  // sqrt(3) - 1
    }
  }

  MASKBENCH_INLINE Words<Isa> words(Lanes block) const {
    Words<Isa> w = {block, block >> 32, offset_low, offset_high};
    MASKBENCH_UNROLL
    for (int round = 0; round < 10; ++round) {
      const Lanes product0 = Isa::multiply(w.w0, 0xD2511F53);
      const Lanes product1 = Isa::multiply(w.w2, 0xCD9E8D57);
      w = {(product1 >> 32) ^ (w.w1 ^ keys0[round]), product1, (product0 >> 32) ^ (w.w3 ^ keys1[round]), product0};
    }
    return w;
  }

  Lanes offset_low, offset_high, keys0[10], keys1[10];
};

// Blocks that hold the normals of a row; one more holds its category.
MASKBENCH_INLINE uint64_t normal_blocks(int64_t gaussian_dim) { return (static_cast<uint64_t>(gaussian_dim) + 3) / 4; }

// In (0, 1]: the last 128 words give exactly 1. The conversion rounds to nearest even.
MASKBENCH_INLINE float uniform(uint32_t word) { return fmaf(static_cast<float>(word), 0x1p-32f, 0x1p-33f); }

// Natural logarithm of a uniform: relative error below 1.5e-7, ln(1) = 0, never positive.
MASKBENCH_INLINE float log_uniform(float u) {
  // u = 2^exponent * (1 + f) with 1 + f in [sqrt(1/2), sqrt(2))
  const uint32_t above = bits_from_float(u) - 0x3F3504F3;  // bits of sqrt(1/2)
  const int32_t exponent = static_cast<int32_t>(above) >> 23;
  const float f = float_from_bits((above & 0x007FFFFF) + 0x3F3504F3) - 1.0f;
  float p = 0x1.6fcc32p-4f;
  p = fmaf(p, f, -0x1.277634p-3f);
  p = fmaf(p, f, 0x1.30d174p-3f);
  p = fmaf(p, f, -0x1.52fb12p-3f);
  p = fmaf(p, f, 0x1.98da1cp-3f);
  p = fmaf(p, f, -0x1.0006c6p-2f);
  p = fmaf(p, f, 0x1.5556e8p-2f);
  p = fmaf(p, f, -0x1.fffff4p-2f);
  const float log1p = fmaf(f * f, p, f);
  return fmaf(static_cast<float>(exponent), 0x1.62e430p-1f, log1p);
}

// Sine and cosine of 2 pi u: absolute error below 1.2e-7.
MASKBENCH_INLINE void sincos_turn(float u, float& sine, float& cosine) {
  // to an octant either side of the nearest quarter turn; exact, and before pi enters
  const float quarters = 4.0f * u;
  const int32_t quadrant = static_cast<int32_t>(quarters + 0.5f);
  const float f = quarters - static_cast<float>(quadrant);
  const float y = f * f;
  float s = -0x1.2d9bb8p-8f;
  s = fmaf(s, y, 0x1.465ec6p-4f);
  s = fmaf(s, y, -0x1.4abbbap-1f);
  s = fmaf(s, y, 0x1.921fb6p+0f);
  s = s * f;
  float c = 0x1.d9f7bap-11f;
  c = fmaf(c, y, -0x1.55c664p-6f);
  c = fmaf(c, y, 0x1.03c1dep-2f);
  c = fmaf(c, y, -0x1.3bd3ccp+0f);
  c = fmaf(c, y, 1.0f);
  // the quadrant's low bit swaps the two, its next bit is the sine's sign, their exclusive or the cosine's
  const bool swap = quadrant & 1;
  const uint32_t sine_sign = static_cast<uint32_t>(quadrant & 2) << 30;
  const uint32_t cosine_sign = static_cast<uint32_t>((quadrant + 1) & 2) << 30;
  sine = float_from_bits(bits_from_float(swap ? c : s) ^ sine_sign);
  cosine = float_from_bits(bits_from_float(swap ? s : c) ^ cosine_sign);
}

// Two words to two normals (Box and Muller, 1958), within 2e-6 * max(1, |x|) of the same in float64.
MASKBENCH_INLINE void box_muller(uint32_t word0, uint32_t word1, float& normal0, float& normal1) {
  const float radius = sqrtf(-2.0f * log_uniform(uniform(word0)));
  float sine, cosine;
  sincos_turn(uniform(word1), sine, cosine);
  normal0 = radius * cosine;
  normal1 = radius * sine;
}

// Uniform over [0, categories).
MASKBENCH_INLINE int64_t category(uint32_t word, int64_t categories) {
  return static_cast<int64_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(categories)) >> 32);
}

}  // namespace maskbench
