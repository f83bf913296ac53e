// The losses of the discriminators.
#pragma once

#include <cstdint>

#include "../../bce_math.h"
#include "vectors_inl.h"

namespace maskbench {
namespace {

// The sum of the losses of `count` logits; `gradients` gets scale times their derivatives.
template <typename T>
T bce_sum(const T* logits, T sign, T scale, int64_t count, T* gradients) {
  T sums[kSums] = {};
  int64_t start = 0;
  for (; start + kSums <= count; start += kSums) {
#pragma omp simd
    for (int i = 0; i < kSums; ++i) {
      T loss, derivative;
      bce(sign * logits[start + i], loss, derivative);
      sums[i] += loss;
      gradients[start + i] = scale * derivative;
    }
  }
  for (int i = 0; start + i < count; ++i) {
    T loss, derivative;
    bce(sign * logits[start + i], loss, derivative);
    sums[i] += loss;
    gradients[start + i] = scale * derivative;
  }
  T sum = 0;
  for (const T part : sums) sum += part;
  return sum;
}

}  // namespace
}  // namespace maskbench
