// The inner loops, compiled once for each instruction set and picked at run time. All copies give the same bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#if defined(__x86_64__)
#define MASKBENCH_X86
#endif

namespace maskbench {

// Where the rows of one draw come from and go to.
struct PriorDraw {
  uint64_t seed, offset, first_row;
  int64_t gaussian_dim, categories;
  float* gaussian;
  float* one_hot;
};

// A linear layer, y = x W + b, and what AdamW keeps of it: running means of its gradients and of their squares.
template <typename T>
struct Linear {
  int64_t inputs, outputs;
  T *weight, *weight_mean, *weight_square;  // [inputs, outputs]
  T *bias, *bias_mean, *bias_square;        // [outputs]
};

struct AdamW {
  double lr, beta1, beta2, epsilon, weight_decay;
  int64_t steps;  // that were taken already
};

// An epoch of one MLP: three layers, ReLU and dropout between, cross-entropy at the end.
template <typename T>
struct MlpEpoch {
  Linear<T> layers[3];
  AdamW adam;
  int64_t steps, batch;
  const T* features;                  // [rows, layers[0].inputs]
  const int64_t* labels;              // [rows]
  const int64_t* order;               // [steps, batch], of this MLP
  const T* kept[2];                   // dropout's factors of both hidden layers, [steps, batch, hidden]
  int64_t order_stride, kept_stride;  // from a step to the next
  T* scratch;                         // mlp_scratch() numbers, 0 in the beginning
  const T** rows;                     // room for 3 * mlp_rows()
};

// Rows of a mini-batch are taken four at a time, so that a weight is read once for all of them.
constexpr int64_t kMlpRows = 4;
inline int64_t mlp_rows(int64_t batch) { return (batch + kMlpRows - 1) / kMlpRows * kMlpRows; }
inline int64_t mlp_scratch(int64_t batch, int64_t features, int64_t hidden, int64_t classes) {
  return features + mlp_rows(batch) * (4 * hidden + classes);
}

struct Kernels {
  const char* name;
  // Writes rows [begin, end) of a draw.
  void (*draw_rows)(const PriorDraw& draw, int64_t begin, int64_t end);
  // Returns the sum of the losses of `count` logits, against the label 1 where `sign` is -1 and 0 where it is 1;
  // writes scale times the derivatives.
  float (*bce_float)(const float* logits, float sign, float scale, int64_t count, float* gradients);
  double (*bce_double)(const double* logits, double sign, double scale, int64_t count, double* gradients);
  // Trains; returns the sum of all rows' losses and writes how many were classified right.
  double (*mlp_epoch_float)(const MlpEpoch<float>& epoch, int64_t& right);
  double (*mlp_epoch_double)(const MlpEpoch<double>& epoch, int64_t& right);
};

extern const Kernels kPlainKernels;
#ifdef MASKBENCH_X86
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

// What runs: the widest instruction set of this processor, unless a test has chosen another.
const Kernels& kernels();

// Names of what was compiled, widest first; whether this processor runs it; and the tests' choice, which raises
// ValueError where it does not.
std::vector<std::string> compiled_kernels();
void use_kernels(const std::string& name);

}  // namespace maskbench
