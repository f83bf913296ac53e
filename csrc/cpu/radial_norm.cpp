#include "../radial_norm.h"

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "bump_versions.h"
#include "simd/kernels.h"

namespace maskbench {
namespace {

using at::Tensor;

// The result, and what the backward pass needs: log radii, inverse deviations, the power law.
std::tuple<Tensor, Tensor, Tensor, Tensor> radial_norm_forward(const Tensor& x_, const Tensor& center,
                                                               const Tensor& variance, const Tensor& log_radius_mean,
                                                               const Tensor& log_radius_variance, double weight,
                                                               double tail, double normal_mean,
                                                               double normal_deviation) {
  check_radial_norm(x_, center, variance, log_radius_mean, log_radius_variance);
  const Tensor x = x_.contiguous();
  const int64_t rows = x.size(0), features = x.size(1);
  Tensor y = at::empty_like(x), log_radius = at::empty({rows}, x.options());
  Tensor inverse = at::empty({features}, x.options()), law = at::empty({2}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "radial_norm_forward", [&] {
    std::vector<scalar_t> scratch(2 * features);
    kernels_of<scalar_t>().radial_norm(
        {rows, features, static_cast<scalar_t>(weight), static_cast<scalar_t>(tail), static_cast<scalar_t>(normal_mean),
         static_cast<scalar_t>(normal_deviation), x.const_data_ptr<scalar_t>(), center.mutable_data_ptr<scalar_t>(),
         variance.mutable_data_ptr<scalar_t>(), log_radius_mean.mutable_data_ptr<scalar_t>(),
         log_radius_variance.mutable_data_ptr<scalar_t>(), y.mutable_data_ptr<scalar_t>(),
         log_radius.mutable_data_ptr<scalar_t>(), inverse.mutable_data_ptr<scalar_t>(),
         law.mutable_data_ptr<scalar_t>(), scratch.data()});
  });
  bump_versions({center, variance, log_radius_mean, log_radius_variance});
  return {y, log_radius, inverse, law};
}

Tensor radial_norm_backward(const Tensor& dy_, const Tensor& y, const Tensor& log_radius, const Tensor& inverse,
                            const Tensor& law) {
  check_radial_norm_backward(dy_, y, log_radius, inverse, law);
  const Tensor dy = dy_.contiguous();
  Tensor dx = at::empty_like(dy);
  AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "radial_norm_backward", [&] {
    kernels_of<scalar_t>().radial_norm_backward({y.size(0), y.size(1), dy.const_data_ptr<scalar_t>(),
                                                 y.const_data_ptr<scalar_t>(), log_radius.const_data_ptr<scalar_t>(),
                                                 inverse.const_data_ptr<scalar_t>(), law.const_data_ptr<scalar_t>(),
                                                 dx.mutable_data_ptr<scalar_t>()});
  });
  return dx;
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CPU, m) {
  m.impl("radial_norm_forward", &radial_norm_forward);
  m.impl("radial_norm_backward", &radial_norm_backward);
}

}  // namespace maskbench
