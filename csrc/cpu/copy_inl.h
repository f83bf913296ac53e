// One copy of all inner loops, for the instruction set of the file that includes this: see kernels_inl.h.
#include "adam_inl.h"
#include "convolution_inl.h"
#include "kernels_inl.h"
#include "linear_inl.h"
#include "mlp_inl.h"
#include "norm_inl.h"

namespace maskbench {
namespace {

template <typename T>
constexpr KernelsOf<T> kCopy = {bce_sum<T>,  mlp_epoch<T>,       linear_forward<T>, linear_backward<T>,
                                convolve<T>, kernel_gradient<T>, radial_norm<T>,    radial_norm_backward<T>,
                                adam_step<T>};

}  // namespace
}  // namespace maskbench
