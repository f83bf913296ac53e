// One instruction set's table of kernels, and all inner loops that are in it. A file that includes it has set the
// compiler's target and defined, in an unnamed namespace, `Isa`: Lanes, multiply (see philox.h) and index, the numbers
// 0, 1, 2, ... in Lanes; and what vectors_inl.h names.
//
// No function templates of the standard library in any *_inl.h: one copy would serve all instruction sets.
#pragma once

#include "adam_step_inl.h"
#include "bce_inl.h"
#include "convolutions_inl.h"
#include "kernels.h"
#include "mlp_inl.h"
#include "sample_prior_inl.h"
#include "train_mlps_inl.h"

namespace maskbench {
namespace {

template <typename T>
constexpr KernelsOf<T> kTable = {bce_sum<T>,  mlp_epoch<T>,       linear_forward<T>, linear_backward<T>,
                                 convolve<T>, kernel_gradient<T>, adam_step<T>};

}  // namespace
}  // namespace maskbench
