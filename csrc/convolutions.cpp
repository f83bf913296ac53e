// Stacks of convolutions of 4 x 4, stride 2, padding 1, or of transposed ones ("up"), with LeakyReLU.
#include "convolutions.h"

#include <tuple>

#include "autograd.h"
#include "checks.h"

namespace maskbench {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// That images can go through layers of these weights, from the first to the last or, `backwards`, the other way round.
void check_images(const char* name, const Tensor& images, at::TensorList weights, bool up, bool backwards) {
  TORCH_CHECK_VALUE(images.dim() == 4 && images.numel() > 0 && images.size(2) == images.size(3), name,
                    " must be images [N, channels, side, side], not empty, got ", describe(images));
  TORCH_CHECK_VALUE(!weights.empty(), "there must be a layer, got no weights");
  TORCH_CHECK_VALUE(up || images.size(2) % (int64_t{1} << weights.size()) == 0, "a side of ", images.size(2),
                    " cannot be halved ", weights.size(), " times");
  int64_t channels = images.size(1);
  for (size_t passed = 0; passed < weights.size(); ++passed) {
    const size_t i = backwards ? weights.size() - 1 - passed : passed;
    const Tensor& weight = weights[i];
    TORCH_CHECK_VALUE(weight.dim() == 4 && weight.numel() > 0 && weight.size(up ? 0 : 1) == channels &&
                          weight.size(2) == 4 && weight.size(3) == 4 && weight.scalar_type() == images.scalar_type(),
                      "layer ", i, " must have ", dtype_of(images), " weights of 4 x 4 with ", channels,
                      " channels in dimension ", up ? 0 : 1, ", got ", describe(weight));
    channels = weight.size(up ? 1 : 0);
  }
}

class Convolutions : public torch::autograd::Function<Convolutions> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, at::TensorList weights, at::TensorList biases,
                        double slope, bool up) {
    static const auto run = op<std::tuple<Tensor, Tensor>(const Tensor&, at::TensorList, at::TensorList, double, bool)>(
        "maskbench::convolutions_forward");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [y, kept] = run.call(x, weights, biases, slope, up);
    context->save_for_backward(joined({{kept}, weights.vec()}));
    context->saved_data["slope"] = slope;
    context->saved_data["up"] = up;
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    static const auto run =
        op<std::tuple<Tensor, Tensors, Tensors>(const Tensor&, const Tensor&, at::TensorList, double, bool, bool)>(
            "maskbench::convolutions_backward");
    const auto saved = context->get_saved_variables();
    const auto [dx, dweights, dbiases] =
        run.call(gradients[0], saved[0], at::TensorList(saved).slice(1), context->saved_data["slope"].toDouble(),
                 context->saved_data["up"].toBool(), context->needs_input_grad(0));
    return joined({{dx}, dweights, dbiases, {Tensor(), Tensor()}});
  }
};

Tensor convolutions(const Tensor& x, at::TensorList weights, at::TensorList biases, double slope, bool up) {
  return Convolutions::apply(x, weights, biases, slope, up);
}

}  // namespace

void check_convolutions(const Tensor& x, at::TensorList weights, at::TensorList biases, double slope, bool up) {
  check_images("x", x, weights, up, false);
  check_biases(weights, biases, up ? 1 : 0, slope);
}

// The gradient by the result is like images that go through the stack the other way round.
void check_convolutions_backward(const Tensor& dy, const Tensor& kept, at::TensorList weights, bool up) {
  check_images("dy", dy, weights, !up, true);
  TORCH_CHECK_VALUE(kept.scalar_type() == dy.scalar_type() && kept.is_contiguous(), "kept must be ", dtype_of(dy),
                    " and contiguous, got ", describe(kept));
}

TORCH_LIBRARY_FRAGMENT(maskbench, m) {
  m.def("convolutions(Tensor x, Tensor[] weights, Tensor[] biases, float slope, bool up) -> Tensor", &convolutions);
  m.def("convolutions_forward(Tensor x, Tensor[] weights, Tensor[] biases, float slope, bool up) -> (Tensor, Tensor)");
  m.def(
      "convolutions_backward(Tensor dy, Tensor kept, Tensor[] weights, float slope, bool up, bool want_dx)"
      " -> (Tensor, Tensor[], Tensor[])");
}

TORCH_LIBRARY_IMPL(maskbench, Autograd, m) {
  m.impl("convolutions_forward", not_differentiable());
  m.impl("convolutions_backward", not_differentiable());
}

}  // namespace maskbench
