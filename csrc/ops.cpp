// Schemas, autograd and build facts. The kernels are in cpu/ and cuda/, the fakes in maskbench/ops.py.
#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "cpu/simd/kernels.h"
#include "philox.h"

#ifdef WITH_CUDA
#include <cuda.h>
#endif

namespace maskbench {
namespace {

using at::Tensor;

template <typename Function>
auto op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
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

using Tensors = std::vector<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

variable_list joined(std::initializer_list<variable_list> lists) {
  variable_list all;
  for (const variable_list& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
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

Tensor mlp(const Tensor& x, at::TensorList weights, at::TensorList biases, double slope) {
  return Mlp::apply(x, weights, biases, slope);
}

Tensor convolutions(const Tensor& x, at::TensorList weights, at::TensorList biases, double slope, bool up) {
  return Convolutions::apply(x, weights, biases, slope, up);
}

Tensor radial_norm(const Tensor& x, const Tensor& center, const Tensor& variance, const Tensor& log_radius_mean,
                   const Tensor& log_radius_variance, double weight, double tail, double normal_mean,
                   double normal_deviation) {
  return RadialNorm::apply(x, center, variance, log_radius_mean, log_radius_variance, weight, tail, normal_mean,
                           normal_deviation);
}

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
  m.def("mlp(Tensor x, Tensor[] weights, Tensor[] biases, float slope) -> Tensor", &mlp);
  m.def("mlp_forward(Tensor x, Tensor[] weights, Tensor[] biases, float slope) -> Tensor[]");
  m.def(
      "mlp_backward(Tensor dy, Tensor x, Tensor[] outputs, Tensor[] weights, float slope, bool want_dx,"
      " bool want_dweights) -> (Tensor, Tensor[], Tensor[])");
  m.def("convolutions(Tensor x, Tensor[] weights, Tensor[] biases, float slope, bool up) -> Tensor", &convolutions);
  m.def("convolutions_forward(Tensor x, Tensor[] weights, Tensor[] biases, float slope, bool up) -> (Tensor, Tensor)");
  m.def(
      "convolutions_backward(Tensor dy, Tensor kept, Tensor[] weights, float slope, bool up, bool want_dx)"
      " -> (Tensor, Tensor[], Tensor[])");
  m.def(
      "radial_norm(Tensor x, Tensor(a!) center, Tensor(b!) variance, Tensor(c!) log_radius_mean,"
      " Tensor(d!) log_radius_variance, float weight, float tail, float normal_mean, float normal_deviation) -> Tensor",
      &radial_norm);
  m.def(
      "radial_norm_forward(Tensor x, Tensor(a!) center, Tensor(b!) variance, Tensor(c!) log_radius_mean,"
      " Tensor(d!) log_radius_variance, float weight, float tail, float normal_mean, float normal_deviation)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("radial_norm_backward(Tensor dy, Tensor y, Tensor log_radius, Tensor inverse, Tensor law) -> Tensor");
  m.def(
      "adam_step(Tensor(a!)[] weights, Tensor[] gradients, Tensor(b!)[] means, Tensor(c!)[] squares, float lr,"
      " float beta1, float beta2, float epsilon, int steps_before) -> ()");
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
  m.impl("mlp_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("convolutions_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("radial_norm_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("adam_step", torch::autograd::autogradNotImplementedFallback());
  m.impl("mlp_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("convolutions_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("radial_norm_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace maskbench

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("build_info", &maskbench::build_info);
  m.def("philox_words", &maskbench::philox_words);
  m.def("use_kernels", &maskbench::use_kernels);
}
