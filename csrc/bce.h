#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace maskbench {

void check_bce(const at::Tensor& real_logits, const std::optional<at::Tensor>& fake_logits);

}  // namespace maskbench
