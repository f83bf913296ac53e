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

}  // namespace maskbench
