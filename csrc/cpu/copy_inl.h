// One copy of all inner loops. A file that includes it has set the compiler's target and defined, in an unnamed
// namespace, `Isa`: Lanes, multiply (see philox.h) and index, the numbers 0, 1, 2, ... in Lanes; and what vectors_inl.h
// names.
//
// No function templates of the standard library here: one copy would serve all instruction sets.
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
