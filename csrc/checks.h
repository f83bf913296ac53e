// What the kernels rely on. maskbench/ops.py says it kinder; this stops whoever calls torch.ops.maskbench directly.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace maskbench {

inline void check_sample_prior(const at::Tensor& rng_state, int64_t batch, int64_t gaussian_dim, int64_t categories,
                               int64_t first_row) {
  TORCH_CHECK_VALUE(rng_state.scalar_type() == at::kLong && rng_state.dim() == 1 && rng_state.size(0) == 2,
                    "rng_state must be int64 [2]");
  TORCH_CHECK_VALUE(batch > 0 && gaussian_dim > 0 && categories > 0, "sizes must be at least 1");
  TORCH_CHECK_VALUE(first_row >= 0, "first_row must not be negative");
}

inline void check_bce(const at::Tensor& real_logits, const std::optional<at::Tensor>& fake_logits) {
  TORCH_CHECK_VALUE(real_logits.dim() == 2 && real_logits.numel() > 0, "logits must be [discriminators, rows]");
  TORCH_CHECK_VALUE(!fake_logits || (fake_logits->sizes() == real_logits.sizes() &&
                                     fake_logits->scalar_type() == real_logits.scalar_type() &&
                                     fake_logits->device() == real_logits.device()),
                    "real and fake logits must agree in shape, dtype and device");
}

// The sizes of what an epoch of MLPs is trained on, and the numbers of rows and classes in it.
inline void check_train_mlps(at::TensorList weights, at::TensorList means, at::TensorList squares,
                             const at::Tensor& features, const at::Tensor& labels, const at::Tensor& order,
                             const at::Tensor& kept) {
  TORCH_CHECK_VALUE(features.dim() == 3 && order.dim() == 3 && kept.dim() == 5 && weights.size() == 6,
                    "features must be [R, rows, F], order [steps, R, batch], kept [steps, 2, R, batch, hidden], and "
                    "weights six");
  const int64_t mlps = features.size(0), rows = features.size(1), hidden = kept.size(4);
  const int64_t steps = order.size(0), batch = order.size(2), classes = weights[5].dim() == 3 ? weights[5].size(2) : 0;
  TORCH_CHECK_VALUE(mlps > 0 && batch > 0 && hidden > 0 && classes > 0, "sizes must be at least 1");
  const std::vector<std::vector<int64_t>> sizes = {{mlps, features.size(2), hidden}, {mlps, 1, hidden},
                                                   {mlps, hidden, hidden},           {mlps, 1, hidden},
                                                   {mlps, hidden, classes},          {mlps, 1, classes}};
  for (const auto tensors : {weights, means, squares}) {
    TORCH_CHECK_VALUE(tensors.size() == sizes.size(), "each weight must have its moments");
    for (size_t i = 0; i < sizes.size(); ++i) {
      TORCH_CHECK_VALUE(tensors[i].sizes() == sizes[i] && tensors[i].is_contiguous() &&
                            tensors[i].scalar_type() == features.scalar_type(),
                        "weight ", i, " and its moments must be contiguous, of the features' dtype and ",
                        at::IntArrayRef(sizes[i]));
    }
  }
  TORCH_CHECK_VALUE(
      kept.sizes() == at::IntArrayRef({steps, 2, mlps, batch, hidden}) && kept.scalar_type() == features.scalar_type(),
      "kept must have the features' dtype, and order's steps and batch");
  TORCH_CHECK_VALUE(labels.sizes() == at::IntArrayRef({mlps, rows}) && order.size(1) == mlps &&
                        labels.scalar_type() == at::kLong && order.scalar_type() == at::kLong,
                    "labels must be int64 [R, rows], order int64 [steps, R, batch]");
}

// That x can go through layers of these weights.
inline void check_layers(const at::Tensor& x, at::TensorList weights) {
  TORCH_CHECK_VALUE(x.dim() == 2 && x.numel() > 0 && !weights.empty(), "x must be [rows, inputs], of some layers");
  int64_t width = x.size(1);
  for (size_t i = 0; i < weights.size(); ++i) {
    TORCH_CHECK_VALUE(weights[i].dim() == 2 && weights[i].size(0) > 0 && weights[i].size(1) == width &&
                          weights[i].scalar_type() == x.scalar_type(),
                      "layer ", i, " must have weights [outputs, ", width, "] of x's dtype");
    width = weights[i].size(0);
  }
}

inline void check_kernels(const at::Tensor& x, at::TensorList weights, bool up) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.numel() > 0 && x.size(2) == x.size(3) && !weights.empty(),
                    "images must be [N, channels, side, side], of some layers");
  TORCH_CHECK_VALUE(up || x.size(2) % (int64_t{1} << weights.size()) == 0, "a side of ", x.size(2),
                    " cannot be halved ", weights.size(), " times");
  int64_t channels = x.size(1);
  for (size_t i = 0; i < weights.size(); ++i) {
    const at::Tensor& weight = weights[i];
    TORCH_CHECK_VALUE(weight.dim() == 4 && weight.numel() > 0 && weight.size(up ? 0 : 1) == channels &&
                          weight.size(2) == 4 && weight.size(3) == 4 && weight.scalar_type() == x.scalar_type(),
                      "layer ", i, " must have weights of 4 x 4 for ", channels, " channels, of x's dtype");
    channels = weight.size(up ? 1 : 0);
  }
}

// outputs: the dimension of the weights that counts them.
inline void check_biases(at::TensorList weights, at::TensorList biases, int64_t outputs, double slope) {
  TORCH_CHECK_VALUE(weights.size() == biases.size(), "every layer must have a bias");
  for (size_t i = 0; i < weights.size(); ++i) {
    TORCH_CHECK_VALUE(biases[i].sizes() == at::IntArrayRef({weights[i].size(outputs)}) &&
                          biases[i].scalar_type() == weights[i].scalar_type(),
                      "layer ", i, " must have a bias of ", weights[i].size(outputs), " numbers of x's dtype");
  }
  TORCH_CHECK_VALUE(slope >= 0, "LeakyReLU's slope must be 0 or more: its derivative is read from what came out");
}

inline void check_mlp(const at::Tensor& x, at::TensorList weights, at::TensorList biases, double slope) {
  check_layers(x, weights);
  check_biases(weights, biases, 0, slope);
}

// outputs: of all layers but the last; dy: the gradient by those of the last.
inline void check_mlp_backward(const at::Tensor& dy, const at::Tensor& x, at::TensorList outputs,
                               at::TensorList weights) {
  check_layers(x, weights);
  TORCH_CHECK_VALUE(outputs.size() + 1 == weights.size(), "every layer but the last must have its outputs");
  for (size_t i = 0; i < weights.size(); ++i) {
    const bool last = i + 1 == weights.size();
    const at::Tensor& of_layer = last ? dy : outputs[i];
    TORCH_CHECK_VALUE(of_layer.sizes() == at::IntArrayRef({x.size(0), weights[i].size(0)}) &&
                          of_layer.scalar_type() == x.scalar_type() && (last || of_layer.is_contiguous()),
                      "the outputs of layer ", i, ", or their gradient, must be of its shape and dtype");
  }
}

inline void check_convolutions(const at::Tensor& x, at::TensorList weights, at::TensorList biases, double slope,
                               bool up) {
  check_kernels(x, weights, up);
  check_biases(weights, biases, up ? 1 : 0, slope);
}

// The gradient by the result is like images that go through the stack the other way round.
inline void check_convolutions_backward(const at::Tensor& dy, const at::Tensor& kept, at::TensorList weights, bool up) {
  check_kernels(dy, std::vector<at::Tensor>(weights.rbegin(), weights.rend()), !up);
  TORCH_CHECK_VALUE(kept.scalar_type() == dy.scalar_type() && kept.is_contiguous(), "kept must be of dy's dtype");
}

inline void check_radial_norm(const at::Tensor& x, const at::Tensor& center, const at::Tensor& variance,
                              const at::Tensor& log_radius_mean, const at::Tensor& log_radius_variance) {
  TORCH_CHECK_VALUE(x.dim() == 2 && x.numel() > 0, "x must be [rows, features]");
  for (const at::Tensor& statistic : {center, variance, log_radius_mean, log_radius_variance}) {
    TORCH_CHECK_VALUE(statistic.is_contiguous() && statistic.scalar_type() == x.scalar_type(),
                      "statistics must be contiguous and of x's dtype");
  }
  TORCH_CHECK_VALUE(center.sizes() == at::IntArrayRef({x.size(1)}) && variance.sizes() == center.sizes() &&
                        log_radius_mean.dim() == 0 && log_radius_variance.dim() == 0,
                    "center and variance must be [features], those of the log radius scalars");
}

inline void check_radial_norm_backward(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& log_radius,
                                       const at::Tensor& inverse, const at::Tensor& law) {
  TORCH_CHECK_VALUE(y.dim() == 2 && dy.sizes() == y.sizes() && log_radius.sizes() == at::IntArrayRef({y.size(0)}) &&
                        inverse.sizes() == at::IntArrayRef({y.size(1)}) && law.sizes() == at::IntArrayRef({2}),
                    "gradients must be of the result's shape, the rest as radial_norm_forward gave it");
  for (const at::Tensor& tensor : {dy, y, log_radius, inverse, law}) {
    TORCH_CHECK_VALUE(tensor.scalar_type() == y.scalar_type(), "all must have one dtype");
  }
  for (const at::Tensor& tensor : {y, log_radius, inverse, law}) {
    TORCH_CHECK_VALUE(tensor.is_contiguous(), "what radial_norm_forward gave must be contiguous");
  }
}

inline void check_adam_step(at::TensorList weights, at::TensorList gradients, at::TensorList means,
                            at::TensorList squares) {
  for (const auto tensors : {gradients, means, squares}) {
    TORCH_CHECK_VALUE(tensors.size() == weights.size(), "each weight must have its gradient and moments");
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    for (const at::Tensor& tensor : {weights[i], gradients[i], means[i], squares[i]}) {
      TORCH_CHECK_VALUE(tensor.sizes() == weights[i].sizes() && tensor.scalar_type() == weights[0].scalar_type(),
                        "weight ", i, ", its gradient and moments must agree in shape, and all in dtype");
    }
    TORCH_CHECK_VALUE(weights[i].is_contiguous() && means[i].is_contiguous() && squares[i].is_contiguous(), "weight ",
                      i, " and its moments must be contiguous");
  }
}

}  // namespace maskbench
