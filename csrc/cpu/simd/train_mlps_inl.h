// An epoch of one MLP in one pass over its weights a step.
//
// A mini-batch of 4 makes 4 multiplications of a weight where AdamW makes ten operations and a division, so what counts
// is how often a weight and its moments travel from memory: here once for the products of the forward pass, and once
// for its gradient, which stays in registers, the update and the gradient of its input together.
#pragma once

#include <cmath>
#include <cstdint>

#include "../../bce_math.h"
#include "adam_step_inl.h"
#include "train_mlps.h"
#include "vectors_inl.h"

namespace maskbench {
namespace {

constexpr int kColumns = 64;  // outputs whose sums for four rows stay in registers

// y = x W + b for four rows, of the columns that begin at `first`; all kColumns of them where `kWhole`.
template <bool kWhole, typename T>
MASKBENCH_INLINE void four_rows(const Linear<T>& layer, const T* const* x, int64_t first, T* y) {
  const int64_t outputs = layer.outputs, columns = kWhole ? kColumns : outputs - first;
  T sums[kMlpRows][kColumns];
  for (int row = 0; row < kMlpRows; ++row) {
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) sums[row][j] = layer.bias[first + j];
  }
  for (int64_t i = 0; i < layer.inputs; ++i) {
    const T* weight = layer.weight + i * outputs + first;
    for (int row = 0; row < kMlpRows; ++row) {
      const T factor = x[row][i];
#pragma omp simd
      for (int64_t j = 0; j < columns; ++j) sums[row][j] += factor * weight[j];
    }
  }
  for (int row = 0; row < kMlpRows; ++row) {
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) y[row * outputs + first + j] = sums[row][j];
  }
}

// x: pointers to `rows` rows, a multiple of four; y: [rows, outputs].
template <typename T>
void forward(const Linear<T>& layer, const T* const* x, int64_t rows, T* y) {
  for (int64_t row = 0; row < rows; row += kMlpRows) {
    int64_t column = 0;
    for (; column + kColumns <= layer.outputs; column += kColumns) {
      four_rows<true>(layer, x + row, column, y + row * layer.outputs);
    }
    if (column < layer.outputs) four_rows<false>(layer, x + row, column, y + row * layer.outputs);
  }
}

// The weights of input i and of the columns that begin at `first`, by the gradient x^T d.
template <bool kWhole, typename T>
MASKBENCH_INLINE void update_columns(const Linear<T>& layer, const T* const* x, const T* d, int64_t rows, int64_t i,
                                     int64_t first, const Update<T>& update) {
  const int64_t outputs = layer.outputs, columns = kWhole ? kColumns : outputs - first, start = i * outputs + first;
  T* const weight = layer.weight + start;
  T* const mean = layer.weight_mean + start;
  T* const square = layer.weight_square + start;
  T gradient[kColumns];
  for (int64_t row = 0; row < rows; row += kMlpRows) {
    const T *d0 = d + row * outputs + first, *d1 = d0 + outputs, *d2 = d1 + outputs, *d3 = d2 + outputs;
    const T x0 = x[row][i], x1 = x[row + 1][i], x2 = x[row + 2][i], x3 = x[row + 3][i];
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) {
      const T four = (x0 * d0[j] + x1 * d1[j]) + (x2 * d2[j] + x3 * d3[j]);
      gradient[j] = row == 0 ? four : gradient[j] + four;
    }
  }
#pragma omp simd
  for (int64_t j = 0; j < columns; ++j) update(gradient[j], weight[j], mean[j], square[j]);
}

// Sums over the outputs, of weights times four rows of d, in kSums parts on every instruction set.
template <typename T>
MASKBENCH_INLINE void input_gradients(const T* weight, const T* d, int64_t outputs, int64_t inputs, T* dx) {
  T sums[kMlpRows][kSums] = {};
  int64_t start = 0;
  for (; start + kSums <= outputs; start += kSums) {
    for (int row = 0; row < kMlpRows; ++row) {
#pragma omp simd
      for (int j = 0; j < kSums; ++j) sums[row][j] += weight[start + j] * d[row * outputs + start + j];
    }
  }
  for (int row = 0; row < kMlpRows; ++row) {
    for (int j = 0; start + j < outputs; ++j) sums[row][j] += weight[start + j] * d[row * outputs + start + j];
    T sum = 0;
    for (int j = 0; j < kSums; ++j) sum += sums[row][j];
    dx[row * inputs] = sum;
  }
}

// Updates the layer by d, [rows, outputs], the loss's gradient by its outputs; dx: the same by its inputs,
// [rows, inputs], at the weights as they were, or null.
template <typename T>
void backward(const Linear<T>& layer, const T* const* x, const T* d, int64_t rows, const Update<T>& update, T* dx) {
  for (int64_t i = 0; i < layer.inputs; ++i) {
    for (int64_t row = 0; dx && row < rows; row += kMlpRows) {
      input_gradients(layer.weight + i * layer.outputs, d + row * layer.outputs, layer.outputs, layer.inputs,
                      dx + row * layer.inputs + i);
    }
    int64_t column = 0;
    for (; column + kColumns <= layer.outputs; column += kColumns) {
      update_columns<true>(layer, x, d, rows, i, column, update);
    }
    if (column < layer.outputs) update_columns<false>(layer, x, d, rows, i, column, update);
  }
  for (int64_t j = 0; j < layer.outputs; ++j) {
    T gradient = 0;
    for (int64_t row = 0; row < rows; ++row) gradient += d[row * layer.outputs + j];
    update(gradient, layer.bias[j], layer.bias_mean[j], layer.bias_square[j]);
  }
}

// ReLU and dropout in place, [count].
template <typename T>
void activate(T* hidden, const T* kept, int64_t count) {
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) hidden[j] = hidden[j] <= 0 ? 0 : hidden[j] * kept[j];  // not a number stays one
}

// The gradient by what came out of `activate` becomes that by what went in.
template <typename T>
void activate_backward(T* gradient, const T* hidden, const T* kept, int64_t count) {
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) gradient[j] = hidden[j] <= 0 ? 0 : gradient[j] * kept[j];
}

// A row's cross-entropy; its logits, [classes], become the loss's gradient by them, times `scale`.
template <typename T>
double cross_entropy(T* logits, int64_t classes, int64_t label, T scale, int64_t& right) {
  int64_t best = 0;
  for (int64_t k = 1; k < classes; ++k) best = logits[k] > logits[best] ? k : best;
  right += best == label;
  const T top = logits[best], of_label = logits[label] - top;
  T sum = 0;
  for (int64_t k = 0; k < classes; ++k) sum += logits[k] = exp_nonpositive(logits[k] - top);
  for (int64_t k = 0; k < classes; ++k) logits[k] = scale * (logits[k] / sum - static_cast<T>(k == label));
  return std::log(static_cast<double>(sum)) - static_cast<double>(of_label);
}

template <typename T>
double mlp_epoch(const MlpEpoch<T>& epoch, int64_t& right) {
  const auto& [first, second, third] = epoch.layers;
  const int64_t rows = mlp_rows(epoch.batch), hidden = first.outputs, classes = third.outputs;
  const int64_t numbers = epoch.batch * hidden;
  const T* const nothing = epoch.scratch;  // fills up the last four rows, whose gradients are 0
  T* const hidden1 = epoch.scratch + first.inputs;
  T* const hidden2 = hidden1 + rows * hidden;
  T* const d1 = hidden2 + rows * hidden;
  T* const d2 = d1 + rows * hidden;
  T* const logits = d2 + rows * hidden;
  const T **const x = epoch.rows, **const x2 = x + rows, **const x3 = x2 + rows;  // the layers' inputs
  for (int64_t row = 0; row < rows; ++row) {
    x[row] = nothing;
    x2[row] = hidden1 + row * hidden;
    x3[row] = hidden2 + row * hidden;
  }

  double loss = 0;
  right = 0;
  for (int64_t step = 0; step < epoch.steps; ++step) {
    const int64_t before = step * epoch.batch;  // rows
    const T* kept1 = epoch.kept[0] + step * epoch.kept_stride;
    const T* kept2 = epoch.kept[1] + step * epoch.kept_stride;
    for (int64_t row = 0; row < epoch.batch; ++row) x[row] = epoch.features + (before + row) * first.inputs;

    forward(first, x, rows, hidden1);
    activate(hidden1, kept1, numbers);
    forward(second, x2, rows, hidden2);
    activate(hidden2, kept2, numbers);
    forward(third, x3, rows, logits);
    for (int64_t row = 0; row < epoch.batch; ++row) {
      loss += cross_entropy(logits + row * classes, classes, epoch.labels[before + row], T{1} / epoch.batch, right);
    }
    for (int64_t j = epoch.batch * classes; j < rows * classes; ++j) logits[j] = 0;

    const Update<T> update = update_at<T>(epoch.adam, epoch.adam.steps + step + 1);
    backward(third, x3, logits, rows, update, d2);
    activate_backward(d2, hidden2, kept2, numbers);
    backward(second, x2, d2, rows, update, d1);
    activate_backward(d1, hidden1, kept1, numbers);
    backward<T>(first, x, d1, rows, update, nullptr);
  }
  return loss;
}

}  // namespace
}  // namespace maskbench
