// Vectors of numbers. `Isa` (see table_inl.h) brings: Floats and Doubles; multiply_add, fused where the processor can;
// broadcast; sum, of a vector's numbers; load_part and store_part, of the first numbers of a vector.
#pragma once

#include <cstdint>
#include <cstring>

#include "../../philox.h"

// Loops over tiles: unrolled before the compiler decides what stays in registers.
#define MASKBENCH_UNROLL_TILE _Pragma("GCC unroll 16")

namespace maskbench {
namespace {

template <typename T>
struct VectorOf {
  using Type = Isa::Floats;
};
template <>
struct VectorOf<double> {
  using Type = Isa::Doubles;
};
template <typename T>
using Vec = typename VectorOf<T>::Type;
template <typename T>
constexpr int kLanes = sizeof(Vec<T>) / sizeof(T);

// Partial sums of what must have the same bits on every instruction set, however long its vectors are.
constexpr int kSums = 16;

// How vectors are read and written: whole, or of what is left at the end of a row.
struct Whole {
  template <typename T>
  MASKBENCH_INLINE Vec<T> load(const T* from) const {
    Vec<T> v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
  template <typename T>
  MASKBENCH_INLINE void store(T* to, Vec<T> v) const {
    std::memcpy(to, &v, sizeof v);
  }
};
struct Part {
  int count;
  template <typename T>
  MASKBENCH_INLINE Vec<T> load(const T* from) const {
    return Isa::load_part(from, count);
  }
  template <typename T>
  MASKBENCH_INLINE void store(T* to, Vec<T> v) const {
    Isa::store_part(to, v, count);
  }
};

}  // namespace
}  // namespace maskbench
