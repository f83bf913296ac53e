// The inner loops, compiled once for each instruction set and picked at run time. Draws, losses and the classifier's
// MLPs have the same bits in all copies; a training step's kernels agree to rounding.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
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

// A linear layer of a small mini-batch, with LeakyReLU behind it: y = leaky(x W^T + b); slope 1 for none.
template <typename T>
struct LinearForward {
  int64_t rows, inputs, outputs;
  const T *x, *weight, *bias;  // [rows, inputs], [outputs, inputs], [outputs]
  T slope;
  T* y;  // [rows, outputs]
};

// Outputs of a linear layer whose gradients are computed together; and how many go to each of some threads.
constexpr int64_t kTogether = 8;
inline int64_t share_of_outputs(int64_t outputs, int64_t threads) {
  return (outputs + kTogether * threads - 1) / (kTogether * threads) * kTogether;
}

// Its gradients, from d, the loss's gradient by x W^T + b.
template <typename T>
struct LinearBackward {
  int64_t rows, inputs, outputs;
  int64_t stride;           // from one row of the inputs, and of their gradients, to the next
  const T *x, *weight, *d;  // [rows, stride], [outputs, inputs], [rows, outputs]
  T* dweight;               // as weight, or null where nobody asks
};

// A convolution of 4 x 4, stride 2, padding 1, over one image, or one of the four that make up its transpose: sums over
// stretches of memory, a bias, LeakyReLU. Channels are last.
template <typename T>
struct Convolution {
  int64_t height, width, channels;  // of what is written
  const T* from;
  int64_t from_row, from_pixel;     // from what one written row, or pixel, reads to what the next reads
  int64_t stretches, from_stretch;  // how many stretches a pixel reads; from one to the next
  int64_t length;                   // of a stretch, in numbers
  const T *weight, *bias;           // [stretches, length, channels], [channels] or null
  T slope;
  const T* sign;  // as `to`, or null: what LeakyReLU's derivative depends on, in a backward pass
  T* to;
  int64_t to_row, to_pixel;
};

// The gradient by its weights, from the large image and the gradient by the small one, or the other way round.
template <typename T>
struct KernelGradient {
  int64_t images, side, large_channels, small_channels;  // side: of the small images
  const T *large, *small;                                // at their first pixels: in the border, and within it
  int64_t large_image, small_image, large_row, small_row;
  T* gradient;  // [small_channels, large_channels, 4, 4]
};

constexpr int64_t kGradientChannels = 4;

// A training step's normalisation of the Gaussian part, [rows, features]: the statistics follow x, then y is computed.
template <typename T>
struct RadialNorm {
  int64_t rows, features;
  T weight;  // of these rows in the running statistics
  T tail;    // degrees of freedom for each feature
  T normal_mean, normal_deviation;
  const T* x;
  T *center, *variance;                      // [features]
  T *log_radius_mean, *log_radius_variance;  // one number
  T *y, *log_radius, *inverse, *law;         // [rows, features], [rows], [features] 1 / deviation, [2] power, offset
  T* scratch;                                // [2, features]
};

template <typename T>
struct RadialNormBackward {
  int64_t rows, features;
  const T *dy, *y, *log_radius, *inverse, *law;
  T* dx;
};

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
  void (*radial_norm)(const RadialNorm<T>& pass);
  void (*radial_norm_backward)(const RadialNormBackward<T>& pass);
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
