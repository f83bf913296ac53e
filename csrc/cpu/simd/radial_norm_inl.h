// The normalisation of the Gaussian part in training: maskbench/models/heads.py, RadialGaussianization.
#pragma once

#include <cmath>

#include "../../philox.h"
#include "radial_norm.h"

namespace maskbench {
namespace {

template <typename T>
MASKBENCH_INLINE T at_least(T x, T least) {
  return x < least ? least : x;
}

constexpr double kTiny = 1e-12;

// Writes 1 / deviation of every feature.
template <typename T>
MASKBENCH_INLINE void inverse_deviations(const RadialNorm<T>& pass) {
#pragma omp simd
  for (int64_t j = 0; j < pass.features; ++j) {
    pass.inverse[j] = 1 / std::sqrt(at_least(pass.variance[j], static_cast<T>(kTiny)));
  }
}

template <typename T>
void radial_norm(const RadialNorm<T>& pass) {
  const int64_t rows = pass.rows, features = pass.features;
  T *const shares = pass.scratch, *const shifts = shares + features;  // sums over the rows
  for (int64_t j = 0; j < 2 * features; ++j) shares[j] = 0;
  inverse_deviations(pass);
  T weights = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const T* x = pass.x + row * features;
    T length = 0;
#pragma omp simd reduction(+ : length)
    for (int64_t j = 0; j < features; ++j) {
      const T standard = (x[j] - pass.center[j]) * pass.inverse[j];
      length += standard * standard;
    }
    const T weight = (1 + pass.tail) * features / (pass.tail * features + length);
    weights += weight;
#pragma omp simd
    for (int64_t j = 0; j < features; ++j) {
      const T centred = x[j] - pass.center[j], standard = centred * pass.inverse[j];
      shares[j] += weight * (standard * standard);
      shifts[j] += weight * centred;
    }
  }
#pragma omp simd
  for (int64_t j = 0; j < features; ++j) {
    pass.center[j] += pass.weight * shifts[j] / weights;
    pass.variance[j] *= 1 + pass.weight * (shares[j] / rows - 1);
  }

  inverse_deviations(pass);
  T mean = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const T* x = pass.x + row * features;
    T* y = pass.y + row * features;
    T length = 0;
#pragma omp simd reduction(+ : length)
    for (int64_t j = 0; j < features; ++j) {
      y[j] = (x[j] - pass.center[j]) * pass.inverse[j];
      length += y[j] * y[j];
    }
    pass.log_radius[row] = std::log(at_least(std::sqrt(length), static_cast<T>(kTiny)));
    mean += pass.log_radius[row] / rows;
  }
  *pass.log_radius_mean += pass.weight * (mean - *pass.log_radius_mean);
  T variance = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const T distance = pass.log_radius[row] - *pass.log_radius_mean;
    variance += distance * distance / rows;
  }
  *pass.log_radius_variance += pass.weight * (variance - *pass.log_radius_variance);

  const T power = pass.normal_deviation / std::sqrt(at_least(*pass.log_radius_variance, static_cast<T>(kTiny)));
  const T offset = pass.normal_mean - power * *pass.log_radius_mean;
  pass.law[0] = power;
  pass.law[1] = offset;
  for (int64_t row = 0; row < rows; ++row) {
    T* y = pass.y + row * features;
    const T factor = std::exp((power - 1) * pass.log_radius[row] + offset);
#pragma omp simd
    for (int64_t j = 0; j < features; ++j) y[j] *= factor;
  }
}

// With z the standardised x, r its length and y = z g(r), g(r) = exp((power - 1) log r + offset):
// dz = g (dy + (power - 1) (dy . z) / r^2 z), where dy . z = dy . y / g and z = y / g. The statistics are constants.
template <typename T>
void radial_norm_backward(const RadialNormBackward<T>& pass) {
  const int64_t features = pass.features;
  const T power = pass.law[0], offset = pass.law[1], tiny = std::log(static_cast<T>(kTiny));
  for (int64_t row = 0; row < pass.rows; ++row) {
    const T *y = pass.y + row * features, *dy = pass.dy + row * features;
    T* dx = pass.dx + row * features;
    const T log_radius = pass.log_radius[row], factor = std::exp((power - 1) * log_radius + offset);
    T product = 0;
#pragma omp simd reduction(+ : product)
    for (int64_t j = 0; j < features; ++j) product += dy[j] * y[j];
    const bool has_direction = log_radius > tiny && factor > 0;
    const T along = has_direction ? (power - 1) * product / factor * std::exp(-2 * log_radius) : 0;
#pragma omp simd
    for (int64_t j = 0; j < features; ++j) dx[j] = (factor * dy[j] + along * y[j]) * pass.inverse[j];
  }
}

}  // namespace
}  // namespace maskbench
