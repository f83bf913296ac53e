// A step of Adam for all weights at once.
#include "adam_step.h"

#include "checks.h"
#include "not_differentiable.h"

namespace maskbench {

void check_adam_step(at::TensorList weights, at::TensorList gradients, at::TensorList means, at::TensorList squares) {
  for (const auto tensors : {gradients, means, squares}) {
    TORCH_CHECK_VALUE(tensors.size() == weights.size(), "each weight must have its gradient and moments, got ",
                      tensors.size(), " for ", weights.size(), " weights");
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    for (const at::Tensor& tensor : {weights[i], gradients[i], means[i], squares[i]}) {
      TORCH_CHECK_VALUE(tensor.sizes() == weights[i].sizes() && tensor.scalar_type() == weights[0].scalar_type(),
                        "weight ", i, ", its gradient and moments must be ", dtype_of(weights[0]), " ",
                        weights[i].sizes(), ", got ", describe(tensor));
    }
    TORCH_CHECK_VALUE(weights[i].is_contiguous() && means[i].is_contiguous() && squares[i].is_contiguous(), "weight ",
                      i, " and its moments must be contiguous");
  }
}

TORCH_LIBRARY_FRAGMENT(maskbench, m) {
  m.def(
      "adam_step(Tensor(a!)[] weights, Tensor[] gradients, Tensor(b!)[] means, Tensor(c!)[] squares, float lr,"
      " float beta1, float beta2, float epsilon, int steps_before) -> ()");
}

TORCH_LIBRARY_IMPL(maskbench, Autograd, m) { m.impl("adam_step", not_differentiable()); }

}  // namespace maskbench
