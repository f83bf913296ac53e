#include "kernels.h"

#ifdef MASKBENCH_X86
// GCC 12 warns of its own header: https://gcc.gnu.org/bugzilla/show_bug.cgi?id=105593
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <cmath>
#include <cstring>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma")
#endif

#include "../philox.h"

namespace {

struct Isa {
  using Lanes = uint64_t __attribute__((vector_size(64)));
  static MASKBENCH_INLINE Lanes multiply(Lanes words, uint32_t factor) {
    return reinterpret_cast<Lanes>(_mm512_mul_epu32(reinterpret_cast<__m512i>(words), _mm512_set1_epi64(factor)));
  }
  static MASKBENCH_INLINE Lanes index() { return Lanes{0, 1, 2, 3, 4, 5, 6, 7}; }
};

}  // namespace

#include "kernels_inl.h"
#include "mlp_inl.h"

const maskbench::Kernels maskbench::kAvx512Kernels = {"avx512",        draw_rows,        bce_sum<float>,
                                                      bce_sum<double>, mlp_epoch<float>, mlp_epoch<double>};

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif  // MASKBENCH_X86
