// Linear layers of small mini-batches, forward and backward.
#pragma once

#include "mlp.h"
#include "vectors_inl.h"

namespace maskbench {
namespace {

template <int kRows, int kOutputs, typename Access, typename T>
MASKBENCH_INLINE void add_products(const T* x, const T* weight, int64_t inputs, Access access,
                                   Vec<T> (&sums)[kRows][kOutputs]) {
  Vec<T> w[kOutputs];
  MASKBENCH_UNROLL_TILE
  for (int o = 0; o < kOutputs; ++o) w[o] = access.load(weight + o * inputs);
  MASKBENCH_UNROLL_TILE
  for (int r = 0; r < kRows; ++r) {
    const Vec<T> of_row = access.load(x + r * inputs);
    MASKBENCH_UNROLL_TILE
    for (int o = 0; o < kOutputs; ++o) sums[r][o] = Isa::multiply_add(of_row, w[o], sums[r][o]);
  }
}

// y = x W^T + b of kRows rows and kOutputs outputs, LeakyReLU behind it.
template <int kRows, int kOutputs, typename T>
MASKBENCH_INLINE void linear_tile(const LinearForward<T>& pass, int64_t row, int64_t output) {
  const int64_t inputs = pass.inputs;
  const T *x = pass.x + row * inputs, *weight = pass.weight + output * inputs;
  Vec<T> sums[kRows][kOutputs] = {};
  int64_t i = 0;
  // meanwhile one of the next tile's weights is fetched by each of the first tiles of rows
  const T* next = weight + (kOutputs + row / kRows % kOutputs) * inputs;
  for (; i + kLanes<T> <= inputs; i += kLanes<T>) {
    __builtin_prefetch(next + i);
    add_products(x + i, weight + i, inputs, Whole(), sums);
  }
  if (i < inputs) add_products(x + i, weight + i, inputs, Part{static_cast<int>(inputs - i)}, sums);
  MASKBENCH_UNROLL_TILE
  for (int r = 0; r < kRows; ++r) {
    MASKBENCH_UNROLL_TILE
    for (int o = 0; o < kOutputs; ++o) {
      const T y = Isa::sum(sums[r][o]) + pass.bias[output + o];
      pass.y[(row + r) * pass.outputs + output + o] = y > 0 ? y : y * pass.slope;
    }
  }
}

// The outputs [begin, end) of all rows.
template <typename T>
void linear_forward(const LinearForward<T>& pass, int64_t begin, int64_t end) {
  int64_t output = begin;
  for (; output + 4 <= end; output += 4) {
    int64_t row = 0;
    for (; row + 4 <= pass.rows; row += 4) linear_tile<4, 4>(pass, row, output);
    for (; row < pass.rows; ++row) linear_tile<1, 4>(pass, row, output);
  }
  for (; output < end; ++output) {
    int64_t row = 0;
    for (; row + 4 <= pass.rows; row += 4) linear_tile<4, 1>(pass, row, output);
    for (; row < pass.rows; ++row) linear_tile<1, 1>(pass, row, output);
  }
}

// The weights of kOutputs outputs by the inputs that begin at i: their gradient (kWeights), and what they add to that
// of the inputs (kInputs). Both need the same factors, so a weight is read once.
template <bool kInputs, bool kWeights, int kOutputs, typename Access, typename T>
MASKBENCH_INLINE void linear_backward_tile(const LinearBackward<T>& pass, int64_t output, int64_t i, bool first, T* dx,
                                           Access access) {
  Vec<T> w[kOutputs], gradients[kOutputs] = {};
  MASKBENCH_UNROLL_TILE
  for (int o = 0; o < kOutputs; ++o) w[o] = access.load(pass.weight + (output + o) * pass.inputs + i);
  for (int64_t row = 0; row < pass.rows; ++row) {
    const T* d = pass.d + row * pass.outputs + output;
    const Vec<T> x = access.load(pass.x + row * pass.stride + i);
    Vec<T> sum = {};
    if (kInputs && !first) sum = access.load(dx + row * pass.stride + i);
    MASKBENCH_UNROLL_TILE
    for (int o = 0; o < kOutputs; ++o) {
      const Vec<T> factor = Isa::broadcast(d[o]);
      if constexpr (kWeights) gradients[o] = Isa::multiply_add(factor, x, gradients[o]);
      if constexpr (kInputs) sum = Isa::multiply_add(factor, w[o], sum);
    }
    if constexpr (kInputs) access.store(dx + row * pass.stride + i, sum);
  }
  if constexpr (kWeights) {
    MASKBENCH_UNROLL_TILE
    for (int o = 0; o < kOutputs; ++o) access.store(pass.dweight + (output + o) * pass.inputs + i, gradients[o]);
  }
}

template <bool kInputs, bool kWeights, int kOutputs, typename T>
void linear_backward_outputs(const LinearBackward<T>& pass, int64_t output, bool first, T* dx) {
  int64_t i = 0;
  for (; i + kLanes<T> <= pass.inputs; i += kLanes<T>) {
    MASKBENCH_UNROLL_TILE
    for (int o = 0; o < kOutputs; ++o) {  // more streams than a processor foresees
      const int64_t ahead = (output + o) * pass.inputs + i + 4 * kLanes<T>;
      __builtin_prefetch(pass.weight + ahead);
      if constexpr (kWeights) __builtin_prefetch(pass.dweight + ahead, 1);
    }
    linear_backward_tile<kInputs, kWeights, kOutputs>(pass, output, i, first, dx, Whole());
  }
  if (i < pass.inputs) {
    const Part rest = {static_cast<int>(pass.inputs - i)};
    linear_backward_tile<kInputs, kWeights, kOutputs>(pass, output, i, first, dx, rest);
  }
}

template <bool kInputs, bool kWeights, typename T>
void linear_backward_of(const LinearBackward<T>& pass, int64_t begin, int64_t end, T* dx) {
  int64_t output = begin;
  for (; output + kTogether <= end; output += kTogether) {
    linear_backward_outputs<kInputs, kWeights, kTogether>(pass, output, output == begin, dx);
  }
  for (; output < end; ++output) {
    linear_backward_outputs<kInputs, kWeights, 1>(pass, output, output == begin, dx);
  }
}

// The gradients by the weights of the outputs [begin, end), and in dx, unless null, their part of those by the inputs.
template <typename T>
void linear_backward(const LinearBackward<T>& pass, int64_t begin, int64_t end, T* dx) {
  if (dx && pass.dweight) {
    linear_backward_of<true, true>(pass, begin, end, dx);
  } else if (dx) {
    linear_backward_of<true, false>(pass, begin, end, dx);
  } else if (pass.dweight) {
    linear_backward_of<false, true>(pass, begin, end, dx);
  }
}

}  // namespace
}  // namespace maskbench
