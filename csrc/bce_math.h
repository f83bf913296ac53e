// Binary cross-entropy with logits and its gradient, element by element, for host and device.
#pragma once

#include "philox.h"

namespace maskbench {

// exp of a non-positive number: relative error below 1.5e-7, zero where the result would not be a normal number.
MASKBENCH_INLINE float exp_nonpositive(float x) {
  // x = k ln 2 + r; adding 1.5 * 2^23 leaves k in the low bits, whatever x is
  const float shifted = fmaf(x, 0x1.715476p+0f, 0x1.8p+23f);
  const float k = shifted - 0x1.8p+23f;
  float r = fmaf(k, -0x1.62e400p-1f, x);
  r = fmaf(k, -0x1.7f7d1cp-20f, r);
  float p = 0x1.6dbc64p-10f;
  p = fmaf(p, r, 0x1.124148p-7f);
  p = fmaf(p, r, 0x1.555454p-5f);
  p = fmaf(p, r, 0x1.555486p-3f);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  const float power = float_from_bits((bits_from_float(shifted) + 127) << 23);
  return x < -87.0f ? 0.0f : p * power;  // not a number stays one
}

MASKBENCH_INLINE double exp_nonpositive(double x) { return std::exp(x); }

// ln(1 + e) for e in [0, 1], as 2 artanh(e / (2 + e)): relative error below 2e-7, also where e is tiny.
MASKBENCH_INLINE float log1p_unit(float e) {
  const float s = e / (2.0f + e);
  const float z = s * s;
  float p = 0x1.1ef874p-2f;
  p = fmaf(p, z, 0x1.1eb610p-2f);
  p = fmaf(p, z, 0x1.99d27cp-2f);
  p = fmaf(p, z, 0x1.555500p-1f);
  p = fmaf(p, z, 2.0f);
  return s * p;
}

MASKBENCH_INLINE double log1p_unit(double e) { return std::log1p(e); }

// The loss against the label 0 and its derivative; against the label 1 negate the logit and the derivative.
template <typename T>
MASKBENCH_INLINE void bce(T logit, T& loss, T& derivative) {
  const T e = exp_nonpositive(-std::abs(logit));
  loss = (logit < T{0} ? T{0} : logit) + log1p_unit(e);
  derivative = (logit < T{0} ? e : T{1}) / (T{1} + e);
}

}  // namespace maskbench
