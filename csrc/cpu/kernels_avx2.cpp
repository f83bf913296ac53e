#include "kernels.h"

#ifdef MASKBENCH_X86
#include <immintrin.h>

#include <cmath>
#include <cstring>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#include "../philox.h"

namespace {

struct Isa {
  using Lanes = uint64_t __attribute__((vector_size(32)));
  static MASKBENCH_INLINE Lanes multiply(Lanes words, uint32_t factor) {
    return reinterpret_cast<Lanes>(_mm256_mul_epu32(reinterpret_cast<__m256i>(words), _mm256_set1_epi64x(factor)));
  }
  static MASKBENCH_INLINE Lanes index() { return Lanes{0, 1, 2, 3}; }
};

}  // namespace

#include "kernels_inl.h"
#include "mlp_inl.h"

const maskbench::Kernels maskbench::kAvx2Kernels = {"avx2",          draw_rows,        bce_sum<float>,
                                                    bce_sum<double>, mlp_epoch<float>, mlp_epoch<double>};

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif  // MASKBENCH_X86
