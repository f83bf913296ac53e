#pragma once

#include <ATen/core/Tensor.h>

namespace maskbench {

void check_train_mlps(at::TensorList weights, at::TensorList means, at::TensorList squares, const at::Tensor& features,
                      const at::Tensor& labels, const at::Tensor& order, const at::Tensor& kept);

// That the rows of `order`, and the classes of their labels, are there. Both tensors contiguous, on the CPU.
void check_order(const at::Tensor& order, const at::Tensor& labels, int64_t classes);

}  // namespace maskbench
