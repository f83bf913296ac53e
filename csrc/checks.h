// What the kernels rely on. maskbench/ops.py says it kinder; this stops whoever calls torch.ops.maskbench directly.
#pragma once

#include <ATen/core/Tensor.h>

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

}  // namespace maskbench
