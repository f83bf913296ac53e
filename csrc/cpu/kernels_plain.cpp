#include "../philox.h"
#include "kernels.h"

namespace {

struct Isa : maskbench::Scalar {
  static Lanes index() { return 0; }
};

}  // namespace

#include "kernels_inl.h"
#include "mlp_inl.h"

const maskbench::Kernels maskbench::kPlainKernels = {"plain",         draw_rows,        bce_sum<float>,
                                                     bce_sum<double>, mlp_epoch<float>, mlp_epoch<double>};
