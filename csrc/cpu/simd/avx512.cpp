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

#include "../../philox.h"

namespace {

struct Isa {
  using Lanes = uint64_t __attribute__((vector_size(64)));
  static MASKBENCH_INLINE Lanes multiply(Lanes words, uint32_t factor) {
    return reinterpret_cast<Lanes>(_mm512_mul_epu32(reinterpret_cast<__m512i>(words), _mm512_set1_epi64(factor)));
  }
  static MASKBENCH_INLINE Lanes index() { return Lanes{0, 1, 2, 3, 4, 5, 6, 7}; }

  using Floats = float __attribute__((vector_size(64)));
  using Doubles = double __attribute__((vector_size(64)));
  static MASKBENCH_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static MASKBENCH_INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm512_fmadd_pd(a, b, c); }
  static MASKBENCH_INLINE Floats broadcast(float x) { return _mm512_set1_ps(x); }
  static MASKBENCH_INLINE Doubles broadcast(double x) { return _mm512_set1_pd(x); }
  static MASKBENCH_INLINE float sum(Floats v) { return _mm512_reduce_add_ps(v); }
  static MASKBENCH_INLINE double sum(Doubles v) { return _mm512_reduce_add_pd(v); }
  static MASKBENCH_INLINE Floats load_part(const float* from, int count) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << count) - 1), from);
  }
  static MASKBENCH_INLINE Doubles load_part(const double* from, int count) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1 << count) - 1), from);
  }
  static MASKBENCH_INLINE void store_part(float* to, Floats v, int count) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1 << count) - 1), v);
  }
  static MASKBENCH_INLINE void store_part(double* to, Doubles v, int count) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1 << count) - 1), v);
  }
};

}  // namespace

#include "table_inl.h"

const maskbench::Kernels maskbench::kAvx512Kernels = {"avx512", draw_rows, kTable<float>, kTable<double>};

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif  // MASKBENCH_X86
