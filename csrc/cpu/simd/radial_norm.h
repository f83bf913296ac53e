// What the normalisation is told: see radial_norm_inl.h.
#pragma once

#include <cstdint>

namespace maskbench {

// A training step's normalisation of the Gaussian part, [rows, features]: the statistics follow x, then y is computed.
template <typename T>
struct RadialNorm {
  int64_t rows, features;
  T weight;  // of these rows in the running statistics
  T tail;    // degrees of freedom for each feature
  T normal_mean, normal_deviation;
  const T* x;
  T *center, *variance;                      // [features]
  T *log_radius_mean, *log_radius_variance;  // one number
  T *y, *log_radius, *inverse, *law;         // [rows, features], [rows], [features] 1 / deviation, [2] power, offset
  T* scratch;                                // [2, features]
};

template <typename T>
struct RadialNormBackward {
  int64_t rows, features;
  const T *dy, *y, *log_radius, *inverse, *law;
  T* dx;
};

}  // namespace maskbench
