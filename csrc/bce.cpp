// The two sides of the adversarial game, discriminator_loss and generator_loss: binary cross-entropy with logits.
#include "bce.h"

#include <ATen/ops/mul.h>

#include <tuple>

#include "autograd.h"
#include "checks.h"

namespace maskbench {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// torch.compile asks, too, about sizes that it does not know yet.
void check_logits(const char* name, const Tensor& logits) {
  TORCH_CHECK_VALUE((logits.scalar_type() == at::kFloat || logits.scalar_type() == at::kDouble) && logits.dim() == 2 &&
                        logits.sym_numel() != 0,
                    name, " must be a float32 or float64 tensor [discriminators, rows], got ", describe(logits));
}

std::tuple<Tensor, Tensor> bce_forward(const Tensor& real_logits, const std::optional<Tensor>& fake_logits) {
  static const auto run = op<decltype(bce_forward)>("maskbench::bce_forward");
  return run.call(real_logits, fake_logits);
}

Tensor bce_backward(const Tensor& grad_output, const Tensor& gradients) {
  static const auto run = op<decltype(bce_backward)>("maskbench::bce_backward");
  return run.call(grad_output, gradients);
}

// The gradient is computed with the loss and kept; what is left for the backward is to scale it.
class Bce : public torch::autograd::Function<Bce> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& real_logits, const std::optional<Tensor>& fake_logits) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [loss, gradients] = bce_forward(real_logits, fake_logits);
    context->save_for_backward({gradients});
    return loss;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad_outputs) {
    const Tensor gradients = bce_backward(grad_outputs[0], context->get_saved_variables()[0]);
    return {gradients.select(0, 0), gradients.sym_size(0) == 2 ? gradients.select(0, 1) : Tensor()};
  }
};

// Both check before they call: tensors on two devices would go to one of them unseen, and torch.compile's go to a fake.
Tensor discriminator_loss(const Tensor& prior_logits, const Tensor& encoded_logits) {
  check_bce(prior_logits, encoded_logits);
  return Bce::apply(prior_logits, encoded_logits);
}

Tensor generator_loss(const Tensor& encoded_logits) {
  check_bce(encoded_logits, std::nullopt);
  return Bce::apply(encoded_logits, std::nullopt);
}

Tensor scale(const Tensor& grad_output, const Tensor& gradients) { return at::mul(gradients, grad_output); }

}  // namespace

// The arguments have the names that the losses give them: the generator's real logits are the encoded ones.
void check_bce(const Tensor& real_logits, const std::optional<Tensor>& fake_logits) {
  check_logits(fake_logits ? "prior_logits" : "encoded_logits", real_logits);
  if (!fake_logits) return;
  check_logits("encoded_logits", *fake_logits);
  TORCH_CHECK_VALUE(real_logits.sym_sizes() == fake_logits->sym_sizes() &&
                        real_logits.scalar_type() == fake_logits->scalar_type() &&
                        real_logits.device() == fake_logits->device(),
                    "prior_logits and encoded_logits must agree in shape, dtype and device, got ",
                    describe(real_logits), " and ", describe(*fake_logits));
}

TORCH_LIBRARY_FRAGMENT(maskbench, m) {
  m.def("discriminator_loss(Tensor prior_logits, Tensor encoded_logits) -> Tensor", &discriminator_loss);
  m.def("generator_loss(Tensor encoded_logits) -> Tensor", &generator_loss);
  m.def("bce_forward(Tensor real_logits, Tensor? fake_logits) -> (Tensor loss, Tensor gradients)");
  m.def("bce_backward(Tensor grad_output, Tensor gradients) -> Tensor");
}

TORCH_LIBRARY_IMPL(maskbench, CompositeExplicitAutograd, m) { m.impl("bce_backward", &scale); }

TORCH_LIBRARY_IMPL(maskbench, Autograd, m) {
  m.impl("bce_forward", not_differentiable());
  m.impl("bce_backward", not_differentiable());
}

}  // namespace maskbench
