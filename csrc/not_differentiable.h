// Apart from autograd.h, which takes twice as long to compile.
#pragma once

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

namespace maskbench {

// First order only: whoever differentiates an op that is registered so is told.
inline torch::CppFunction not_differentiable() { return torch::autograd::autogradNotImplementedFallback(); }

}  // namespace maskbench
