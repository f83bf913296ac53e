#pragma once

#include <ATen/core/Tensor.h>

namespace maskbench {

void check_sample_prior(const at::Tensor& rng_state, int64_t batch, int64_t gaussian_dim, int64_t categories,
                        int64_t first_row);

}  // namespace maskbench
