// For the ops that change tensors in place without autograd's knowing.
#pragma once

#include <ATen/core/Tensor.h>

namespace maskbench {

// Lets autograd refuse a backward pass that needs these as they were.
inline void bump_versions(at::TensorList tensors) {
  for (const at::Tensor& tensor : tensors) tensor.unsafeGetTensorImpl()->bump_version();
}

}  // namespace maskbench
