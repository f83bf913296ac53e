// Draws of both latent priors. Not differentiable.
#include "sample_prior.h"

#include <torch/library.h>

#include "checks.h"

namespace maskbench {

void check_sample_prior(const at::Tensor& rng_state, int64_t batch, int64_t gaussian_dim, int64_t categories,
                        int64_t first_row) {
  TORCH_CHECK_VALUE(rng_state.scalar_type() == at::kLong && rng_state.dim() == 1 && rng_state.size(0) == 2,
                    "rng_state must be an int64 tensor (seed, offset) of shape [2], got ", describe(rng_state));
  TORCH_CHECK_VALUE(batch > 0 && gaussian_dim > 0 && categories > 0,
                    "batch, gaussian_dim and categories must be at least 1, got batch=", batch,
                    ", gaussian_dim=", gaussian_dim, ", categories=", categories);
  TORCH_CHECK_VALUE(first_row >= 0, "first_row must not be negative, got ", first_row);
}

TORCH_LIBRARY_FRAGMENT(maskbench, m) {
  m.def(
      "sample_prior(Tensor rng_state, SymInt batch, SymInt gaussian_dim, SymInt categories, SymInt first_row=0)"
      " -> (Tensor gaussian, Tensor one_hot)");
}

}  // namespace maskbench
