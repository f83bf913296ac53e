#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "../checks.h"
#include "kernels.h"

namespace maskbench {
namespace {

constexpr int64_t kChunk = 1 << 14;  // weights a thread takes at a time

// All weights at once: small layers would not be worth a second thread.
void adam_step(at::TensorList weights, at::TensorList gradients, at::TensorList means, at::TensorList squares,
               double lr, double beta1, double beta2, double epsilon, int64_t steps_before) {
  check_adam_step(weights, gradients, means, squares);
  struct Chunk {
    size_t tensor;
    int64_t begin, end;
  };
  std::vector<Chunk> chunks;
  std::vector<at::Tensor> dense;
  for (size_t i = 0; i < weights.size(); ++i) {
    dense.push_back(gradients[i].contiguous());
    for (int64_t begin = 0; begin < weights[i].numel(); begin += kChunk) {
      chunks.push_back({i, begin, std::min(begin + kChunk, weights[i].numel())});
    }
  }
  if (weights.empty()) return;
  AT_DISPATCH_FLOATING_TYPES(weights[0].scalar_type(), "adam_step", [&] {
    const AdamW adam = {lr, beta1, beta2, epsilon, 0, steps_before};
    at::parallel_for(0, static_cast<int64_t>(chunks.size()), 1, [&](int64_t first, int64_t last) {
      for (int64_t chunk = first; chunk < last; ++chunk) {
        const auto [i, begin, end] = chunks[chunk];
        kernels_of<scalar_t>().adam_step(adam, dense[i].const_data_ptr<scalar_t>() + begin,
                                         weights[i].mutable_data_ptr<scalar_t>() + begin,
                                         means[i].mutable_data_ptr<scalar_t>() + begin,
                                         squares[i].mutable_data_ptr<scalar_t>() + begin, end - begin);
      }
    });
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CPU, m) { m.impl("adam_step", &adam_step); }

}  // namespace maskbench
