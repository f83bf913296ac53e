#pragma once

#include <ATen/core/Tensor.h>

namespace maskbench {

void check_mlp(const at::Tensor& x, at::TensorList weights, at::TensorList biases, double slope);

// outputs: of all layers but the last; dy: the gradient by those of the last.
void check_mlp_backward(const at::Tensor& dy, const at::Tensor& x, at::TensorList outputs, at::TensorList weights);

}  // namespace maskbench
