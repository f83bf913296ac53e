// What the autograd of the ops shares.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <initializer_list>
#include <vector>

#include "not_differentiable.h"

namespace maskbench {

using Tensors = std::vector<at::Tensor>;

// Finds a registered op; its call() goes to the implementation for the tensors' device.
template <typename Function>
auto op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

inline Tensors joined(std::initializer_list<Tensors> lists) {
  Tensors all;
  for (const Tensors& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

}  // namespace maskbench
