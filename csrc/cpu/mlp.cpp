#include "../mlp.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "simd/kernels.h"

namespace maskbench {
namespace {

using at::Tensor;

constexpr int64_t kMlpGrain = 1 << 18;  // multiplications done by a thread before it pays to wake another
constexpr int64_t kLine = 16;           // float32 numbers in a cache line

// Outputs that go to each thread.
int64_t share_of(int64_t rows, int64_t inputs, int64_t outputs) {
  return share_of_outputs(outputs, std::clamp<int64_t>(rows * inputs * outputs / kMlpGrain, 1, at::get_num_threads()));
}

// Memory of this thread alone: what two cores write in turns travels between them each time.
template <typename T>
T* scratch(int64_t numbers) {
  thread_local std::vector<T> room;
  if (static_cast<int64_t>(room.size()) < numbers) room.resize(numbers);
  return room.data();
}

template <typename T>
void copy_rows(int64_t rows, int64_t width, const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(to + row * to_stride, from + row * from_stride, width * sizeof(T));
  }
}

template <typename T>
void layer_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, double slope, const Tensor& y) {
  const int64_t rows = x.size(0), inputs = x.size(1), outputs = weight.size(0);
  const LinearForward<T> pass = {rows,
                                 inputs,
                                 outputs,
                                 x.const_data_ptr<T>(),
                                 weight.const_data_ptr<T>(),
                                 bias.const_data_ptr<T>(),
                                 static_cast<T>(slope),
                                 y.mutable_data_ptr<T>()};
  const int64_t share = share_of(rows, inputs, outputs);
  at::parallel_for(0, (outputs + share - 1) / share, 1, [&](int64_t begin, int64_t end) {
    kernels_of<T>().linear_forward(pass, begin * share, std::min(end * share, outputs));
  });
}

// From d, the loss's gradient by x W^T + b. dx, or dweight and dbias, may be undefined where nobody asks.
template <typename T>
void layer_backward(const Tensor& d, const Tensor& x, const Tensor& weight, const Tensor& dx, const Tensor& dweight,
                    const Tensor& dbias) {
  const int64_t rows = x.size(0), inputs = x.size(1), outputs = weight.size(0);
  if (dbias.defined()) {
    const T* from = d.const_data_ptr<T>();
    T* to = dbias.mutable_data_ptr<T>();
    std::fill_n(to, outputs, T{0});
    for (int64_t row = 0; row < rows; ++row, from += outputs) {
      for (int64_t j = 0; j < outputs; ++j) to[j] += from[j];
    }
  }
  // rows an odd number of cache lines apart: powers of two would contend for the same few lines of the cache
  const int64_t stride = ((inputs + kLine - 1) / kLine | 1) * kLine;
  // every thread has outputs of its own, and sums up their part of dx
  const int64_t share = share_of(2 * rows, inputs, outputs), parts = (outputs + share - 1) / share;
  const Tensor more = dx.defined() ? at::empty({parts - 1, rows, inputs}, x.options()) : Tensor();
  const auto dx_of = [&](int64_t part) {
    return part == 0 ? dx.mutable_data_ptr<T>() : more.mutable_data_ptr<T>() + (part - 1) * rows * inputs;
  };
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    T* const padded = scratch<T>(2 * rows * stride);
    T* const sums = dx.defined() ? padded + rows * stride : nullptr;
    copy_rows(rows, inputs, x.const_data_ptr<T>(), inputs, padded, stride);
    const LinearBackward<T> pass = {rows,
                                    inputs,
                                    outputs,
                                    stride,
                                    padded,
                                    weight.const_data_ptr<T>(),
                                    d.const_data_ptr<T>(),
                                    dweight.defined() ? dweight.mutable_data_ptr<T>() : nullptr};
    for (int64_t part = begin; part < end; ++part) {
      kernels_of<T>().linear_backward(pass, part * share, std::min((part + 1) * share, outputs), sums);
      if (sums) copy_rows(rows, inputs, sums, stride, dx_of(part), inputs);
    }
  });
  for (int64_t part = 1; dx.defined() && part < parts; ++part) {
    T* sum = dx_of(0);
    const T* summand = dx_of(part);
    for (int64_t i = 0; i < rows * inputs; ++i) sum[i] += summand[i];
  }
}

// The outputs of all layers.
std::vector<Tensor> mlp_forward(const Tensor& x, at::TensorList weights, at::TensorList biases, double slope) {
  check_mlp(x, weights, biases, slope);
  std::vector<Tensor> outputs;
  Tensor input = x.contiguous();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "mlp_forward", [&] {
    for (size_t i = 0; i < weights.size(); ++i) {
      outputs.push_back(at::empty({x.size(0), weights[i].size(0)}, x.options()));
      const bool last = i + 1 == weights.size();
      layer_forward<scalar_t>(input, weights[i].contiguous(), biases[i].contiguous(), last ? 1 : slope, outputs[i]);
      input = outputs[i];
    }
  });
  return outputs;
}

// Gradients by x, the weights and the biases; undefined where they are not wanted. That by x is summed up in as many
// parts as there are threads, so its last bits depend on them.
std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>> mlp_backward(const Tensor& dy, const Tensor& x,
                                                                          at::TensorList outputs,
                                                                          at::TensorList weights, double slope,
                                                                          bool want_dx, bool want_dweights) {
  check_mlp_backward(dy, x, outputs, weights);
  Tensor d = dy.contiguous();
  std::vector<Tensor> dweights(weights.size()), dbiases(weights.size());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "mlp_backward", [&] {
    for (size_t i = weights.size(); i-- > 0;) {
      const Tensor input = i == 0 ? x.contiguous() : outputs[i - 1];
      const Tensor dx = i > 0 || want_dx ? at::empty(input.sizes(), input.options()) : Tensor();
      if (want_dweights) {
        dweights[i] = at::empty(weights[i].sizes(), x.options());
        dbiases[i] = at::empty({weights[i].size(0)}, x.options());
      }
      layer_backward<scalar_t>(d, input, weights[i].contiguous(), dx, dweights[i], dbiases[i]);
      if (i > 0) {
        scalar_t* gradient = dx.mutable_data_ptr<scalar_t>();
        const scalar_t *y = input.const_data_ptr<scalar_t>(), factor = static_cast<scalar_t>(slope);
        for (int64_t j = 0; j < dx.numel(); ++j) gradient[j] *= y[j] > 0 ? 1 : factor;
      }
      d = dx;
    }
  });
  return {d, dweights, dbiases};
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CPU, m) {
  m.impl("mlp_forward", &mlp_forward);
  m.impl("mlp_backward", &mlp_backward);
}

}  // namespace maskbench
