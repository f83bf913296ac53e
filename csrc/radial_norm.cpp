// The normalisation of the Gaussian part in training: maskbench/models/heads.py, RadialGaussianization.
#include "radial_norm.h"

#include <tuple>

#include "autograd.h"
#include "checks.h"

namespace maskbench {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class RadialNorm : public torch::autograd::Function<RadialNorm> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& center, const Tensor& variance,
                        const Tensor& log_radius_mean, const Tensor& log_radius_variance, double weight, double tail,
                        double normal_mean, double normal_deviation) {
    static const auto run = op<std::tuple<Tensor, Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, double, double, double, double)>(
        "maskbench::radial_norm_forward");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [y, log_radius, inverse, law] = run.call(x, center, variance, log_radius_mean, log_radius_variance,
                                                        weight, tail, normal_mean, normal_deviation);
    context->save_for_backward({y, log_radius, inverse, law});
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    static const auto run = op<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&)>(
        "maskbench::radial_norm_backward");
    const auto saved = context->get_saved_variables();
    variable_list all(9);
    all[0] = run.call(gradients[0], saved[0], saved[1], saved[2], saved[3]);
    return all;
  }
};

Tensor radial_norm(const Tensor& x, const Tensor& center, const Tensor& variance, const Tensor& log_radius_mean,
                   const Tensor& log_radius_variance, double weight, double tail, double normal_mean,
                   double normal_deviation) {
  return RadialNorm::apply(x, center, variance, log_radius_mean, log_radius_variance, weight, tail, normal_mean,
                           normal_deviation);
}

}  // namespace

void check_radial_norm(const Tensor& x, const Tensor& center, const Tensor& variance, const Tensor& log_radius_mean,
                       const Tensor& log_radius_variance) {
  TORCH_CHECK_VALUE(x.dim() == 2 && x.numel() > 0, "x must be [rows, features], not empty, got ", describe(x));
  for (const Tensor& statistic : {center, variance, log_radius_mean, log_radius_variance}) {
    TORCH_CHECK_VALUE(statistic.is_contiguous() && statistic.scalar_type() == x.scalar_type(),
                      "statistics must be contiguous and ", dtype_of(x), ", got ", describe(statistic));
  }
  TORCH_CHECK_VALUE(center.sizes() == at::IntArrayRef({x.size(1)}) && variance.sizes() == center.sizes(),
                    "center and variance must be [", x.size(1), "], got ", describe(center), " and ",
                    describe(variance));
  TORCH_CHECK_VALUE(log_radius_mean.dim() == 0 && log_radius_variance.dim() == 0,
                    "log_radius_mean and log_radius_variance must be scalars, got ", describe(log_radius_mean), " and ",
                    describe(log_radius_variance));
}

void check_radial_norm_backward(const Tensor& dy, const Tensor& y, const Tensor& log_radius, const Tensor& inverse,
                                const Tensor& law) {
  TORCH_CHECK_VALUE(y.dim() == 2 && dy.sizes() == y.sizes(), "dy must be of y's shape, [rows, features], got ",
                    describe(dy), " and ", describe(y));
  TORCH_CHECK_VALUE(log_radius.sizes() == at::IntArrayRef({y.size(0)}) &&
                        inverse.sizes() == at::IntArrayRef({y.size(1)}) && law.sizes() == at::IntArrayRef({2}),
                    "log_radius, inverse and law must be as radial_norm_forward gave them, got ", describe(log_radius),
                    ", ", describe(inverse), " and ", describe(law));
  for (const Tensor& tensor : {dy, y, log_radius, inverse, law}) {
    TORCH_CHECK_VALUE(tensor.scalar_type() == y.scalar_type(), "all must be ", dtype_of(y), ", got ", describe(tensor));
  }
  for (const Tensor& tensor : {y, log_radius, inverse, law}) {
    TORCH_CHECK_VALUE(tensor.is_contiguous(), "what radial_norm_forward gave must be contiguous, got strides ",
                      tensor.strides());
  }
}

TORCH_LIBRARY_FRAGMENT(maskbench, m) {
  m.def(
      "radial_norm(Tensor x, Tensor(a!) center, Tensor(b!) variance, Tensor(c!) log_radius_mean,"
      " Tensor(d!) log_radius_variance, float weight, float tail, float normal_mean, float normal_deviation) -> Tensor",
      &radial_norm);
  m.def(
      "radial_norm_forward(Tensor x, Tensor(a!) center, Tensor(b!) variance, Tensor(c!) log_radius_mean,"
      " Tensor(d!) log_radius_variance, float weight, float tail, float normal_mean, float normal_deviation)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("radial_norm_backward(Tensor dy, Tensor y, Tensor log_radius, Tensor inverse, Tensor law) -> Tensor");
}

TORCH_LIBRARY_IMPL(maskbench, Autograd, m) {
  m.impl("radial_norm_forward", not_differentiable());
  m.impl("radial_norm_backward", not_differentiable());
}

}  // namespace maskbench
