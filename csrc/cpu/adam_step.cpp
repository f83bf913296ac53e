#include "../adam_step.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "bump_versions.h"
#include "simd/kernels.h"

namespace maskbench {
namespace {

// All weights at once: most layers alone would not be worth a second thread. Of a large linear layer a thread has the
// rows that it also has in mlp.cpp, where it read them and wrote their gradients: they are in its cache.
void adam_step(at::TensorList weights, at::TensorList gradients, at::TensorList means, at::TensorList squares,
               double lr, double beta1, double beta2, double epsilon, int64_t steps_before) {
  check_adam_step(weights, gradients, means, squares);
  std::vector<at::Tensor> dense;
  for (const at::Tensor& gradient : gradients) dense.push_back(gradient.contiguous());
  const int64_t threads = at::get_num_threads();
  AT_DISPATCH_FLOATING_TYPES(weights[0].scalar_type(), "adam_step", [&] {
    const AdamW adam = {lr, beta1, beta2, epsilon, 0, steps_before};
    at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
      for (size_t i = 0; i < weights.size(); ++i) {
        if (weights[i].numel() == 0) continue;
        const int64_t rows = weights[i].dim() > 0 ? weights[i].size(0) : 1, row = weights[i].numel() / rows;
        const int64_t share = share_of_outputs(rows, threads);
        const int64_t begin = std::min(first * share, rows) * row, end = std::min(last * share, rows) * row;
        kernels_of<scalar_t>().adam_step(adam, dense[i].const_data_ptr<scalar_t>() + begin,
                                         weights[i].mutable_data_ptr<scalar_t>() + begin,
                                         means[i].mutable_data_ptr<scalar_t>() + begin,
                                         squares[i].mutable_data_ptr<scalar_t>() + begin, end - begin);
      }
    });
  });
  for (const at::TensorList tensors : {weights, means, squares}) bump_versions(tensors);
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CPU, m) { m.impl("adam_step", &adam_step); }

}  // namespace maskbench
