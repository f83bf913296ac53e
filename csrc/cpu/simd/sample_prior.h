// What draws from the priors: see sample_prior_inl.h.
#pragma once

#include <cstdint>

namespace maskbench {

// Where the rows of one draw come from and go to.
struct PriorDraw {
  uint64_t seed, offset, first_row;
  int64_t gaussian_dim, categories;
  float* gaussian;
  float* one_hot;
};

}  // namespace maskbench
