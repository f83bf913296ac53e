#pragma once

#include <ATen/core/Tensor.h>

namespace maskbench {

void check_adam_step(at::TensorList weights, at::TensorList gradients, at::TensorList means, at::TensorList squares);

}  // namespace maskbench
