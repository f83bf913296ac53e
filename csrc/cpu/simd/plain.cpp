#include "../../philox.h"
#include "kernels.h"

namespace {

struct Isa : maskbench::Scalar {
  static Lanes index() { return 0; }

  using Floats = float __attribute__((vector_size(16)));
  using Doubles = double __attribute__((vector_size(16)));
  template <typename V>
  static MASKBENCH_INLINE V multiply_add(V a, V b, V c) {
    return a * b + c;
  }
  static MASKBENCH_INLINE Floats broadcast(float x) { return Floats{x, x, x, x}; }
  static MASKBENCH_INLINE Doubles broadcast(double x) { return Doubles{x, x}; }
  static MASKBENCH_INLINE float sum(Floats v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static MASKBENCH_INLINE double sum(Doubles v) { return v[0] + v[1]; }
  static MASKBENCH_INLINE Floats load_part(const float* from, int count) {
    Floats v = {};
    for (int i = 0; i < count; ++i) v[i] = from[i];
    return v;
  }
  static MASKBENCH_INLINE Doubles load_part(const double* from, int) { return Doubles{from[0], 0}; }
  template <typename T, typename V>
  static MASKBENCH_INLINE void store_part(T* to, V v, int count) {
    for (int i = 0; i < count; ++i) to[i] = v[i];
  }
};

}  // namespace

#include "table_inl.h"

const maskbench::Kernels maskbench::kPlainKernels = {"plain", draw_rows, kTable<float>, kTable<double>};
