// What a step of Adam is for every weight.
#pragma once

#include <cmath>

#include "../../philox.h"
#include "adam_step.h"

namespace maskbench {
namespace {

// Kingma and Ba, "Adam", ICLR 2015, algorithm 1; with decoupled weight decay (Loshchilov and Hutter, ICLR 2019,
// algorithm 2) where there is one. In the order of torch.optim.
template <typename T>
struct Update {
  T decay, mean_part, square_kept, square_part, lr, root_scale, epsilon;

  MASKBENCH_INLINE void operator()(T gradient, T& weight, T& mean, T& square) const {
    mean += mean_part * (gradient - mean);
    square = square_kept * square + square_part * gradient * gradient;
    weight = decay * weight - lr * mean / (std::sqrt(square) * root_scale + epsilon);
  }
};

template <typename T>
Update<T> update_at(const AdamW& adam, int64_t step) {
  const double number = static_cast<double>(step);
  return {static_cast<T>(1 - adam.lr * adam.weight_decay),
          static_cast<T>(1 - adam.beta1),
          static_cast<T>(adam.beta2),
          static_cast<T>(1 - adam.beta2),
          static_cast<T>(adam.lr / (1 - std::pow(adam.beta1, number))),
          static_cast<T>(1 / std::sqrt(1 - std::pow(adam.beta2, number))),
          static_cast<T>(adam.epsilon)};
}

// The step after adam.steps others, of `count` weights.
template <typename T>
void adam_step(const AdamW& adam, const T* gradients, T* weights, T* means, T* squares, int64_t count) {
  const Update<T> update = update_at<T>(adam, adam.steps + 1);
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) update(gradients[i], weights[i], means[i], squares[i]);
}

}  // namespace
}  // namespace maskbench
