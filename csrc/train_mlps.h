#pragma once

#include <ATen/core/Tensor.h>

namespace maskbench {

void check_train_mlps(at::TensorList weights, at::TensorList means, at::TensorList squares, const at::Tensor& features,
                      const at::Tensor& labels, const at::Tensor& kept);

// That there are the classes of labels, a contiguous tensor on the CPU.
void check_labels(const at::Tensor& labels, int64_t classes);

}  // namespace maskbench
