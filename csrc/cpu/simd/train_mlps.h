// What an epoch of the classifier's MLPs is told: see train_mlps_inl.h.
#pragma once

#include <cstdint>

#include "adam_step.h"

namespace maskbench {

// A linear layer, y = x W + b, and what AdamW keeps of it: running means of its gradients and of their squares.
template <typename T>
struct Linear {
  int64_t inputs, outputs;
  T *weight, *weight_mean, *weight_square;  // [inputs, outputs]
  T *bias, *bias_mean, *bias_square;        // [outputs]
};

// An epoch of one MLP: three layers, ReLU and dropout between, cross-entropy at the end.
template <typename T>
struct MlpEpoch {
  Linear<T> layers[3];
  AdamW adam;
  int64_t steps, batch;
  const T* features;      // [steps, batch, layers[0].inputs]
  const int64_t* labels;  // [steps, batch]
  const T* kept[2];       // dropout's factors of both hidden layers, [steps, batch, hidden]
  int64_t kept_stride;    // from a step to the next
  T* scratch;             // mlp_scratch() numbers, 0 in the beginning
  const T** rows;         // room for 3 * mlp_rows()
};

// Rows of a mini-batch are taken four at a time, so that a weight is read once for all of them.
constexpr int64_t kMlpRows = 4;
inline int64_t mlp_rows(int64_t batch) { return (batch + kMlpRows - 1) / kMlpRows * kMlpRows; }
inline int64_t mlp_scratch(int64_t batch, int64_t features, int64_t hidden, int64_t classes) {
  return features + mlp_rows(batch) * (4 * hidden + classes);
}

}  // namespace maskbench
