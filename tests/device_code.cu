// Every kernel by itself, without torch, for tests/test_device_code.py: what does nvcc make of it?
#include "bce_kernel.h"
#include "sample_prior_kernel.h"

namespace maskbench {
namespace {

template __global__ void bce_forward_kernel<float>(const float*, const float*, int64_t, int64_t, float, double, float*,
                                                   float*, double*, unsigned int*);
template __global__ void bce_forward_kernel<double>(const double*, const double*, int64_t, int64_t, double, double,
                                                    double*, double*, double*, unsigned int*);

}  // namespace
}  // namespace maskbench
