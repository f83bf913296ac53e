// What the checks of the ops share. Each op checks its arguments in its own file, once, for all devices and callers.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <sstream>
#include <string>

namespace maskbench {

// As Python names it: float32.
inline std::string dtype_of(const at::Tensor& tensor) {
  return std::string(c10::getDtypeNames(tensor.scalar_type()).first);
}

// float32 [2, 3] on cpu.
inline std::string describe(const at::Tensor& tensor) {
  std::ostringstream text;
  text << dtype_of(tensor) << " " << tensor.sym_sizes() << " on " << tensor.device();
  return text.str();
}

// Of layers with LeakyReLU between them; outputs: the dimension of the weights that counts them.
inline void check_biases(at::TensorList weights, at::TensorList biases, int64_t outputs, double slope) {
  TORCH_CHECK_VALUE(weights.size() == biases.size(), "every layer must have a bias, got ", biases.size(), " for ",
                    weights.size(), " layers");
  for (size_t i = 0; i < weights.size(); ++i) {
    TORCH_CHECK_VALUE(biases[i].sizes() == at::IntArrayRef({weights[i].size(outputs)}) &&
                          biases[i].scalar_type() == weights[i].scalar_type(),
                      "layer ", i, " must have a ", dtype_of(weights[i]), " bias [", weights[i].size(outputs),
                      "], got ", describe(biases[i]));
  }
  TORCH_CHECK_VALUE(slope >= 0,
                    "LeakyReLU's slope must be 0 or more, as its derivative is read from what came out; got ", slope);
}

}  // namespace maskbench
