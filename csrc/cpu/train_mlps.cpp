#include "../train_mlps.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "bump_versions.h"
#include "simd/kernels.h"

namespace maskbench {
namespace {

// Every MLP is trained on one core from the first step to the last, so that it stays in that core's cache.
std::tuple<at::Tensor, at::Tensor> train_mlps(at::TensorList weights, at::TensorList means, at::TensorList squares,
                                              const at::Tensor& features, const at::Tensor& labels,
                                              const at::Tensor& kept, double lr, double beta1, double beta2,
                                              double epsilon, double weight_decay, int64_t steps_before) {
  check_train_mlps(weights, means, squares, features, labels, kept);
  const int64_t mlps = features.size(0), rows = features.size(1), width = features.size(2);
  const int64_t steps = kept.size(0), batch = kept.size(3), hidden = kept.size(4), classes = weights[5].size(2);
  const at::Tensor x = features.contiguous(), y = labels.contiguous(), factors = kept.contiguous();
  check_labels(y, classes);

  at::Tensor losses = at::empty({mlps}, features.options()), accuracies = at::empty({mlps}, features.options());
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "train_mlps", [&] {
    at::parallel_for(0, mlps, 1, [&](int64_t begin, int64_t end) {
      std::vector<scalar_t> scratch(mlp_scratch(batch, width, hidden, classes));
      std::vector<const scalar_t*> pointers(3 * mlp_rows(batch));
      for (int64_t mlp = begin; mlp < end; ++mlp) {
        const auto numbers = [&](const at::Tensor& of_all) {
          return of_all.mutable_data_ptr<scalar_t>() + mlp * (of_all.numel() / mlps);
        };
        const auto linear = [&](int number, int64_t inputs, int64_t outputs) {
          const int i = 2 * number;
          return Linear<scalar_t>{inputs,
                                  outputs,
                                  numbers(weights[i]),
                                  numbers(means[i]),
                                  numbers(squares[i]),
                                  numbers(weights[i + 1]),
                                  numbers(means[i + 1]),
                                  numbers(squares[i + 1])};
        };
        const scalar_t* kept1 = factors.const_data_ptr<scalar_t>() + mlp * batch * hidden;
        const MlpEpoch<scalar_t> epoch = {
            {linear(0, width, hidden), linear(1, hidden, hidden), linear(2, hidden, classes)},
            {lr, beta1, beta2, epsilon, weight_decay, steps_before},
            steps,
            batch,
            x.const_data_ptr<scalar_t>() + mlp * rows * width,
            y.const_data_ptr<int64_t>() + mlp * rows,
            {kept1, kept1 + mlps * batch * hidden},
            2 * mlps * batch * hidden,
            scratch.data(),
            pointers.data()};
        int64_t right;
        const double loss = kernels_of<scalar_t>().mlp_epoch(epoch, right), count = static_cast<double>(steps * batch);
        losses.mutable_data_ptr<scalar_t>()[mlp] = static_cast<scalar_t>(loss / count);
        accuracies.mutable_data_ptr<scalar_t>()[mlp] = static_cast<scalar_t>(right / count);
      }
    });
  });
  for (const at::TensorList tensors : {weights, means, squares}) bump_versions(tensors);
  return {losses, accuracies};
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CPU, m) { m.impl("train_mlps", &train_mlps); }

}  // namespace maskbench
