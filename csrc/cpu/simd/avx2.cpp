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

#include "../../philox.h"

namespace {

struct Isa {
  using Lanes = uint64_t __attribute__((vector_size(32)));
  static MASKBENCH_INLINE Lanes multiply(Lanes words, uint32_t factor) {
    return reinterpret_cast<Lanes>(_mm256_mul_epu32(reinterpret_cast<__m256i>(words), _mm256_set1_epi64x(factor)));
  }
  static MASKBENCH_INLINE Lanes index() { return Lanes{0, 1, 2, 3}; }

  using Floats = float __attribute__((vector_size(32)));
  using Doubles = double __attribute__((vector_size(32)));
  static MASKBENCH_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static MASKBENCH_INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm256_fmadd_pd(a, b, c); }
  static MASKBENCH_INLINE Floats broadcast(float x) { return _mm256_set1_ps(x); }
  static MASKBENCH_INLINE Doubles broadcast(double x) { return _mm256_set1_pd(x); }
  static MASKBENCH_INLINE float sum(Floats v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
  }
  static MASKBENCH_INLINE double sum(Doubles v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static MASKBENCH_INLINE Floats load_part(const float* from, int count) {
    return _mm256_maskload_ps(from, first_ints(count));
  }
  static MASKBENCH_INLINE Doubles load_part(const double* from, int count) {
    return _mm256_maskload_pd(from, first_longs(count));
  }
  static MASKBENCH_INLINE void store_part(float* to, Floats v, int count) {
    _mm256_maskstore_ps(to, first_ints(count), v);
  }
  static MASKBENCH_INLINE void store_part(double* to, Doubles v, int count) {
    _mm256_maskstore_pd(to, first_longs(count), v);
  }
  static MASKBENCH_INLINE __m256i first_ints(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static MASKBENCH_INLINE __m256i first_longs(int count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
  }
};

}  // namespace

#include "table_inl.h"

const maskbench::Kernels maskbench::kAvx2Kernels = {"avx2", draw_rows, kTable<float>, kTable<double>};

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif  // MASKBENCH_X86
