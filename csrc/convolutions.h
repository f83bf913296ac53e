#pragma once

#include <ATen/core/Tensor.h>

namespace maskbench {

void check_convolutions(const at::Tensor& x, at::TensorList weights, at::TensorList biases, double slope, bool up);

// Except for the size of what was kept, which is for the implementation to know.
void check_convolutions_backward(const at::Tensor& dy, const at::Tensor& kept, at::TensorList weights, bool up);

}  // namespace maskbench
