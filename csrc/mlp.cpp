// Linear layers with LeakyReLU between them.
#include "mlp.h"

#include <tuple>

#include "autograd.h"
#include "checks.h"

namespace maskbench {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// That x can go through layers of these weights.
void check_layers(const Tensor& x, at::TensorList weights) {
  TORCH_CHECK_VALUE(x.dim() == 2 && x.numel() > 0, "x must be [rows, inputs], not empty, got ", describe(x));
  TORCH_CHECK_VALUE(!weights.empty(), "there must be a layer, got no weights");
  int64_t width = x.size(1);
  for (size_t i = 0; i < weights.size(); ++i) {
    TORCH_CHECK_VALUE(weights[i].dim() == 2 && weights[i].size(0) > 0 && weights[i].size(1) == width &&
                          weights[i].scalar_type() == x.scalar_type(),
                      "layer ", i, " must have ", dtype_of(x), " weights [outputs, ", width, "], got ",
                      describe(weights[i]));
    width = weights[i].size(0);
  }
}

class Mlp : public torch::autograd::Function<Mlp> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, at::TensorList weights, at::TensorList biases,
                        double slope) {
    static const auto run =
        op<Tensors(const Tensor&, at::TensorList, at::TensorList, double)>("maskbench::mlp_forward");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    Tensors outputs = run.call(x, weights, biases, slope);
    const Tensor y = outputs.back();
    outputs.pop_back();
    context->save_for_backward(joined({{x}, weights.vec(), outputs}));
    context->saved_data["slope"] = slope;
    context->saved_data["layers"] = static_cast<int64_t>(weights.size());
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    static const auto run = op<std::tuple<Tensor, Tensors, Tensors>(
        const Tensor&, const Tensor&, at::TensorList, at::TensorList, double, bool, bool)>("maskbench::mlp_backward");
    const auto saved = context->get_saved_variables();
    const int64_t layers = context->saved_data["layers"].toInt();
    const at::TensorList rest = at::TensorList(saved).slice(1);
    bool want_dweights = false;
    for (int64_t i = 1; i <= 2 * layers; ++i) want_dweights |= context->needs_input_grad(i);
    const auto [dx, dweights, dbiases] =
        run.call(gradients[0], saved[0], rest.slice(layers), rest.slice(0, layers),
                 context->saved_data["slope"].toDouble(), context->needs_input_grad(0), want_dweights);
    return joined({{dx}, dweights, dbiases, {Tensor()}});
  }
};

Tensor mlp(const Tensor& x, at::TensorList weights, at::TensorList biases, double slope) {
  return Mlp::apply(x, weights, biases, slope);
}

}  // namespace

void check_mlp(const Tensor& x, at::TensorList weights, at::TensorList biases, double slope) {
  check_layers(x, weights);
  check_biases(weights, biases, 0, slope);
}

void check_mlp_backward(const Tensor& dy, const Tensor& x, at::TensorList outputs, at::TensorList weights) {
  check_layers(x, weights);
  TORCH_CHECK_VALUE(outputs.size() + 1 == weights.size(), "every layer but the last must have its outputs, got ",
                    outputs.size(), " for ", weights.size(), " layers");
  for (size_t i = 0; i < weights.size(); ++i) {
    const bool last = i + 1 == weights.size();
    const Tensor& of_layer = last ? dy : outputs[i];
    TORCH_CHECK_VALUE(of_layer.sizes() == at::IntArrayRef({x.size(0), weights[i].size(0)}) &&
                          of_layer.scalar_type() == x.scalar_type() && (last || of_layer.is_contiguous()),
                      "the ", last ? "gradient by the outputs" : "outputs", " of layer ", i, " must be ", dtype_of(x),
                      " [", x.size(0), ", ", weights[i].size(0), "]", last ? "" : ", contiguous", ", got ",
                      describe(of_layer));
  }
}

TORCH_LIBRARY_FRAGMENT(maskbench, m) {
  m.def("mlp(Tensor x, Tensor[] weights, Tensor[] biases, float slope) -> Tensor", &mlp);
  m.def("mlp_forward(Tensor x, Tensor[] weights, Tensor[] biases, float slope) -> Tensor[]");
  m.def(
      "mlp_backward(Tensor dy, Tensor x, Tensor[] outputs, Tensor[] weights, float slope, bool want_dx,"
      " bool want_dweights) -> (Tensor, Tensor[], Tensor[])");
}

TORCH_LIBRARY_IMPL(maskbench, Autograd, m) {
  m.impl("mlp_forward", not_differentiable());
  m.impl("mlp_backward", not_differentiable());
}

}  // namespace maskbench
