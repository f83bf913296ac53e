// What the linear layers are told: see mlp_inl.h.
#pragma once

#include <cstdint>

namespace maskbench {

// A linear layer of a small mini-batch, with LeakyReLU behind it: y = leaky(x W^T + b); slope 1 for none.
template <typename T>
struct LinearForward {
  int64_t rows, inputs, outputs;
  const T *x, *weight, *bias;  // [rows, inputs], [outputs, inputs], [outputs]
  T slope;
  T* y;  // [rows, outputs]
};

// Outputs of a linear layer whose gradients are computed together; and how many go to each of some threads.
constexpr int64_t kTogether = 8;
inline int64_t share_of_outputs(int64_t outputs, int64_t threads) {
  return (outputs + kTogether * threads - 1) / (kTogether * threads) * kTogether;
}

// Its gradients, from d, the loss's gradient by x W^T + b.
template <typename T>
struct LinearBackward {
  int64_t rows, inputs, outputs;
  int64_t stride;           // from one row of the inputs, and of their gradients, to the next
  const T *x, *weight, *d;  // [rows, stride], [outputs, inputs], [rows, outputs]
  T* dweight;               // as weight, or null where nobody asks
};

}  // namespace maskbench
