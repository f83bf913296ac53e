// Schemas, autograd and build facts. The kernels are in cpu/ and cuda/, the fakes in maskbench/ops.py.
#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "cpu/kernels.h"
#include "philox.h"

#ifdef WITH_CUDA
#include <cuda.h>
#endif

namespace maskbench {
namespace {

using at::Tensor;

std::tuple<Tensor, Tensor> bce_forward(const Tensor& real_logits, const std::optional<Tensor>& fake_logits) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("maskbench::bce_forward", "").typed<decltype(bce_forward)>();
  return op.call(real_logits, fake_logits);
}

Tensor bce_backward(const Tensor& grad_output, const Tensor& gradients) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("maskbench::bce_backward", "").typed<decltype(bce_backward)>();
  return op.call(grad_output, gradients);
}

// The gradient is computed with the loss and kept; what is left for the backward is to scale it.
class Bce : public torch::autograd::Function<Bce> {
 public:
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& real_logits,
                        const std::optional<Tensor>& fake_logits) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [loss, gradients] = bce_forward(real_logits, fake_logits);
    context->save_for_backward({gradients});
    return loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grad_outputs) {
    const Tensor gradients = bce_backward(grad_outputs[0], context->get_saved_variables()[0]);
    return {gradients.select(0, 0), gradients.sym_size(0) == 2 ? gradients.select(0, 1) : Tensor()};
  }
};

Tensor discriminator_loss(const Tensor& prior_logits, const Tensor& encoded_logits) {
  return Bce::apply(prior_logits, encoded_logits);
}

Tensor generator_loss(const Tensor& encoded_logits) { return Bce::apply(encoded_logits, std::nullopt); }

Tensor scale(const Tensor& grad_output, const Tensor& gradients) { return at::mul(gradients, grad_output); }

#define MASKBENCH_STRING(x) #x
#define MASKBENCH_EXPAND(x) MASKBENCH_STRING(x)

// maskbench/ops.py looks for these bytes in the file before it loads it.
const char kBuiltFor[] = "maskbench._C built for torch " MASKBENCH_TORCH_VERSION;

pybind11::dict build_info() {
  pybind11::dict info;
  info["built_for"] = kBuiltFor;
#ifdef __clang__
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["simd_compiled"] = compiled_kernels();
  info["simd_in_use"] = kernels().name;
#ifdef WITH_CUDA
  info["cuda"] = std::to_string(CUDA_VERSION / 1000) + "." + std::to_string(CUDA_VERSION % 1000 / 10);
  info["cuda_architectures"] = MASKBENCH_CUDA_ARCHITECTURES;
#else
  info["cuda"] = pybind11::none();
#endif
  return info;
}

// For the tests' known answers: the four words of a block.
std::vector<uint32_t> philox_words(uint64_t seed, uint64_t offset, uint64_t block) {
  const auto words = Stream<>(seed, offset).words(block);
  return {static_cast<uint32_t>(words.w0), static_cast<uint32_t>(words.w1), static_cast<uint32_t>(words.w2),
          static_cast<uint32_t>(words.w3)};
}

}  // namespace

TORCH_LIBRARY(maskbench, m) {
  m.def(
      "sample_prior(Tensor rng_state, SymInt batch, SymInt gaussian_dim, SymInt categories, SymInt first_row=0)"
      " -> (Tensor gaussian, Tensor one_hot)");
  m.def("discriminator_loss(Tensor prior_logits, Tensor encoded_logits) -> Tensor", &discriminator_loss);
  m.def("generator_loss(Tensor encoded_logits) -> Tensor", &generator_loss);
  m.def("bce_forward(Tensor real_logits, Tensor? fake_logits) -> (Tensor loss, Tensor gradients)");
  m.def("bce_backward(Tensor grad_output, Tensor gradients) -> Tensor");
  m.def(
      "train_mlps(Tensor(a!)[] weights, Tensor(b!)[] means, Tensor(c!)[] squares, Tensor features, Tensor labels,"
      " Tensor order, Tensor kept, float lr, float beta1, float beta2, float epsilon, float weight_decay,"
      " int steps_before) -> (Tensor losses, Tensor accuracies)");
}

TORCH_LIBRARY_IMPL(maskbench, CompositeExplicitAutograd, m) { m.impl("bce_backward", &scale); }

// First order only: whoever differentiates these is told so.
TORCH_LIBRARY_IMPL(maskbench, Autograd, m) {
  m.impl("bce_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("bce_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace maskbench

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("build_info", &maskbench::build_info);
  m.def("philox_words", &maskbench::philox_words);
  m.def("use_kernels", &maskbench::use_kernels);
}
