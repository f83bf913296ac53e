// An epoch of the classifier's MLPs. It makes its own gradients; autograd has no part in it.
#include "train_mlps.h"

#include <torch/library.h>

#include <vector>

#include "checks.h"

namespace maskbench {

void check_train_mlps(at::TensorList weights, at::TensorList means, at::TensorList squares, const at::Tensor& features,
                      const at::Tensor& labels, const at::Tensor& kept) {
  TORCH_CHECK_VALUE(features.dim() == 3, "features must be [R, rows, F], got ", describe(features));
  TORCH_CHECK_VALUE(kept.dim() == 5, "kept must be [steps, 2, R, batch, hidden], got ", describe(kept));
  TORCH_CHECK_VALUE(weights.size() == 6, "three layers must have six weights, got ", weights.size());
  const int64_t mlps = features.size(0), rows = features.size(1), hidden = kept.size(4);
  const int64_t steps = kept.size(0), batch = kept.size(3), classes = weights[5].dim() == 3 ? weights[5].size(2) : 0;
  TORCH_CHECK_VALUE(mlps > 0 && batch > 0 && hidden > 0 && classes > 0,
                    "there must be at least 1 MLP, row, hidden unit and class, got ", mlps, ", a batch of ", batch,
                    ", ", hidden, " and ", classes);
  const std::vector<std::vector<int64_t>> sizes = {{mlps, features.size(2), hidden}, {mlps, 1, hidden},
                                                   {mlps, hidden, hidden},           {mlps, 1, hidden},
                                                   {mlps, hidden, classes},          {mlps, 1, classes}};
  for (const auto tensors : {weights, means, squares}) {
    TORCH_CHECK_VALUE(tensors.size() == sizes.size(), "each weight must have its moments, got ", tensors.size(),
                      " for ", sizes.size(), " weights");
    for (size_t i = 0; i < sizes.size(); ++i) {
      TORCH_CHECK_VALUE(tensors[i].sizes() == sizes[i] && tensors[i].is_contiguous() &&
                            tensors[i].scalar_type() == features.scalar_type(),
                        "weight ", i, " and its moments must be contiguous, of the features' dtype, ",
                        dtype_of(features), ", and ", at::IntArrayRef(sizes[i]), ", got ", describe(tensors[i]));
    }
  }
  const std::vector<int64_t> factors = {steps, 2, mlps, batch, hidden};
  TORCH_CHECK_VALUE(kept.sizes() == factors && kept.scalar_type() == features.scalar_type(),
                    "kept must be of the features' dtype, ", dtype_of(features), ", and ", at::IntArrayRef(factors),
                    ", got ", describe(kept));
  TORCH_CHECK_VALUE(labels.sizes() == at::IntArrayRef({mlps, rows}) && labels.scalar_type() == at::kLong,
                    "labels must be int64 [", mlps, ", ", rows, "], got ", describe(labels));
  TORCH_CHECK_VALUE(rows == steps * batch, "features must have the ", steps * batch, " rows of ", steps, " steps of ",
                    batch, ", got ", rows);
}

void check_labels(const at::Tensor& labels, int64_t classes) {
  const int64_t* label_of = labels.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < labels.numel(); ++i) {
    TORCH_CHECK_INDEX(label_of[i] >= 0 && label_of[i] < classes, "labels: class ", label_of[i], " of ", classes);
  }
}

TORCH_LIBRARY_FRAGMENT(maskbench, m) {
  m.def(
      "train_mlps(Tensor(a!)[] weights, Tensor(b!)[] means, Tensor(c!)[] squares, Tensor features, Tensor labels,"
      " Tensor kept, float lr, float beta1, float beta2, float epsilon, float weight_decay,"
      " int steps_before) -> (Tensor losses, Tensor accuracies)");
}

}  // namespace maskbench
