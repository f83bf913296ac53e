#pragma once

#include <ATen/core/Tensor.h>

namespace maskbench {

void check_radial_norm(const at::Tensor& x, const at::Tensor& center, const at::Tensor& variance,
                       const at::Tensor& log_radius_mean, const at::Tensor& log_radius_variance);

void check_radial_norm_backward(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& log_radius,
                                const at::Tensor& inverse, const at::Tensor& law);

}  // namespace maskbench
