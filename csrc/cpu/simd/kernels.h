// The inner loops, compiled once for each instruction set and picked at run time. Draws, losses and the classifier's
// MLPs have the same bits in all copies; a training step's kernels agree to rounding.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "adam_step.h"
#include "convolutions.h"
#include "mlp.h"
#include "sample_prior.h"
#include "train_mlps.h"

#if defined(__x86_64__)
#define MASKBENCH_X86
#endif

namespace maskbench {

// Of one type of number.
template <typename T>
struct KernelsOf {
  // Returns the sum of the losses of `count` logits, against the label 1 where `sign` is -1 and 0 where it is 1;
  // writes scale times the derivatives.
  T (*bce)(const T* logits, T sign, T scale, int64_t count, T* gradients);
  // Trains; returns the sum of all rows' losses and writes how many were classified right.
  double (*mlp_epoch)(const MlpEpoch<T>& epoch, int64_t& right);
  // Outputs [begin, end) of a layer; the gradients by their weights, and in dx their part of those by the inputs.
  void (*linear_forward)(const LinearForward<T>& pass, int64_t begin, int64_t end);
  void (*linear_backward)(const LinearBackward<T>& pass, int64_t begin, int64_t end, T* dx);
  void (*convolve)(const Convolution<T>& pass);
  // Of the large images' channels [begin, end), at most kGradientChannels.
  void (*kernel_gradient)(const KernelGradient<T>& pass, int64_t begin, int64_t end);
  void (*adam_step)(const AdamW& adam, const T* gradients, T* weights, T* means, T* squares, int64_t count);
};

struct Kernels {
  const char* name;
  // Writes rows [begin, end) of a draw.
  void (*draw_rows)(const PriorDraw& draw, int64_t begin, int64_t end);
  KernelsOf<float> of_float;
  KernelsOf<double> of_double;
};

extern const Kernels kPlainKernels;
#ifdef MASKBENCH_X86
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

// What runs: the widest instruction set of this processor, unless a test has chosen another.
const Kernels& kernels();
template <typename T>
const KernelsOf<T>& kernels_of() {
  if constexpr (std::is_same_v<T, float>) {
    return kernels().of_float;
  } else {
    return kernels().of_double;
  }
}

// Names of what was compiled, widest first; whether this processor runs it; and the tests' choice, which raises
// ValueError where it does not.
std::vector<std::string> compiled_kernels();
void use_kernels(const std::string& name);

}  // namespace maskbench
