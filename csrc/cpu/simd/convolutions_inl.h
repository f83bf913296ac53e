// Convolutions of 4 x 4, stride 2, padding 1: the way down, back up, and the weights' gradient.
//
// Images lie with their channels last and a border of zeros. So the pixels that a row of the kernel reads are one
// stretch of memory, and a convolution is a product of matrices whose rows overlap.
#pragma once

#include "convolutions.h"
#include "vectors_inl.h"

namespace maskbench {
namespace {

constexpr int kAccumulators = sizeof(Isa::Floats) == 64 ? 16 : 8;  // of 32 or 16 registers

// kRows x kColumns pixels and kVectors vectors of channels.
template <int kRows, int kColumns, int kVectors, typename Access, typename T>
MASKBENCH_INLINE void convolve_tile(const Convolution<T>& pass, int64_t y, int64_t x, int64_t channel, Access access) {
  Vec<T> sums[kRows * kColumns][kVectors];
  MASKBENCH_UNROLL_TILE
  for (int v = 0; v < kVectors; ++v) {
    const Vec<T> bias = pass.bias ? access.load(pass.bias + channel + v * kLanes<T>) : Vec<T>{};
    MASKBENCH_UNROLL_TILE
    for (int m = 0; m < kRows * kColumns; ++m) sums[m][v] = bias;
  }
  const T *from = pass.from + y * pass.from_row + x * pass.from_pixel, *weight = pass.weight + channel;
  for (int64_t stretch = 0; stretch < pass.stretches; ++stretch, from += pass.from_stretch) {
    for (int64_t k = 0; k < pass.length; ++k, weight += pass.channels) {
      Vec<T> w[kVectors];
      MASKBENCH_UNROLL_TILE
      for (int v = 0; v < kVectors; ++v) w[v] = access.load(weight + v * kLanes<T>);
      MASKBENCH_UNROLL_TILE
      for (int m = 0; m < kRows * kColumns; ++m) {
        const Vec<T> factor = Isa::broadcast(from[m / kColumns * pass.from_row + m % kColumns * pass.from_pixel + k]);
        MASKBENCH_UNROLL_TILE
        for (int v = 0; v < kVectors; ++v) sums[m][v] = Isa::multiply_add(factor, w[v], sums[m][v]);
      }
    }
  }
  MASKBENCH_UNROLL_TILE
  for (int m = 0; m < kRows * kColumns; ++m) {
    const int64_t place = (y + m / kColumns) * pass.to_row + (x + m % kColumns) * pass.to_pixel + channel;
    MASKBENCH_UNROLL_TILE
    for (int v = 0; v < kVectors; ++v) {
      const Vec<T> value = sums[m][v], below = value * Isa::broadcast(pass.slope);
      const Vec<T> sign = pass.sign ? access.load(pass.sign + place + v * kLanes<T>) : value;
      access.store(pass.to + place + v * kLanes<T>, sign > 0 ? value : below);
    }
  }
}

template <int kVectors, typename Access, typename T>
void convolve_channels(const Convolution<T>& pass, int64_t channel, Access access) {
  constexpr int kPixels = kAccumulators / kVectors;
  int64_t y = 0;
  if constexpr (kPixels >= 8) {  // narrow images: two rows at once
    for (; pass.width < kPixels && y + 2 <= pass.height; y += 2) {
      int64_t x = 0;
      for (; x + kPixels / 2 <= pass.width; x += kPixels / 2) {
        convolve_tile<2, kPixels / 2, kVectors>(pass, y, x, channel, access);
      }
      for (; x < pass.width; ++x) convolve_tile<2, 1, kVectors>(pass, y, x, channel, access);
    }
  }
  for (; y < pass.height; ++y) {
    int64_t x = 0;
    for (; x + kPixels <= pass.width; x += kPixels) {
      convolve_tile<1, kPixels, kVectors>(pass, y, x, channel, access);
    }
    for (; x < pass.width; ++x) convolve_tile<1, 1, kVectors>(pass, y, x, channel, access);
  }
}

template <typename T>
void convolve(const Convolution<T>& pass) {
  int64_t channel = 0;
  for (; channel + 2 * kLanes<T> <= pass.channels; channel += 2 * kLanes<T>) {
    convolve_channels<2>(pass, channel, Whole());
  }
  if (channel + kLanes<T> <= pass.channels) {
    convolve_channels<1>(pass, channel, Whole());
    channel += kLanes<T>;
  }
  if (channel < pass.channels) convolve_channels<1>(pass, channel, Part{static_cast<int>(pass.channels - channel)});
}

// Of kTaps neighbours in a row of the kernel and kChannels of the large image; sums: [tap, channel, lane].
template <int kTaps, int kChannels, int kVectors, typename Access, typename T>
MASKBENCH_INLINE void gradient_tile(const KernelGradient<T>& pass, const T* large, const T* small, T* sums,
                                    Access access) {
  constexpr int kSize = kVectors * kLanes<T>;
  Vec<T> gradients[kTaps * kChannels][kVectors];
  MASKBENCH_UNROLL_TILE
  for (int m = 0; m < kTaps * kChannels; ++m) {
    MASKBENCH_UNROLL_TILE
    for (int v = 0; v < kVectors; ++v) gradients[m][v] = Whole().load(sums + m * kSize + v * kLanes<T>);
  }
  for (int64_t y = 0; y < pass.side; ++y) {
    const T* a = large + 2 * y * pass.large_row;
    const T* d = small + y * pass.small_row;
    for (int64_t x = 0; x < pass.side; ++x, a += 2 * pass.large_channels, d += pass.small_channels) {
      Vec<T> factors[kVectors];
      MASKBENCH_UNROLL_TILE
      for (int v = 0; v < kVectors; ++v) factors[v] = access.load(d + v * kLanes<T>);
      MASKBENCH_UNROLL_TILE
      for (int m = 0; m < kTaps * kChannels; ++m) {
        const Vec<T> of_large = Isa::broadcast(a[m / kChannels * pass.large_channels + m % kChannels]);
        MASKBENCH_UNROLL_TILE
        for (int v = 0; v < kVectors; ++v) gradients[m][v] = Isa::multiply_add(of_large, factors[v], gradients[m][v]);
      }
    }
  }
  MASKBENCH_UNROLL_TILE
  for (int m = 0; m < kTaps * kChannels; ++m) {
    MASKBENCH_UNROLL_TILE
    for (int v = 0; v < kVectors; ++v) Whole().store(sums + m * kSize + v * kLanes<T>, gradients[m][v]);
  }
}

// `count` channels of the small images, as many as there are lanes but at the end.
template <int kTaps, int kChannels, int kVectors, typename Access, typename T>
void gradient_block(const KernelGradient<T>& pass, int64_t large_channel, int64_t small_channel, int count,
                    Access access) {
  constexpr int kSize = kVectors * kLanes<T>;
  alignas(64) T sums[16 * kChannels * kSize] = {};  // [row of the kernel, column, channel, lane]
  for (int64_t image = 0; image < pass.images; ++image) {
    const T* large = pass.large + image * pass.large_image + large_channel;
    const T* small = pass.small + image * pass.small_image + small_channel;
    for (int row = 0; row < 4; ++row) {
      for (int tap = 0; tap < 4; tap += kTaps) {
        gradient_tile<kTaps, kChannels, kVectors>(pass, large + row * pass.large_row + tap * pass.large_channels, small,
                                                  sums + (4 * row + tap) * kChannels * kSize, access);
      }
    }
  }
  for (int lane = 0; lane < count; ++lane) {
    for (int channel = 0; channel < kChannels; ++channel) {
      T* to = pass.gradient + ((small_channel + lane) * pass.large_channels + large_channel + channel) * 16;
      for (int tap = 0; tap < 16; ++tap) to[tap] = sums[(tap * kChannels + channel) * kSize + lane];
    }
  }
}

template <int kTaps, int kChannels, int kVectors, typename T>
void gradient_channels(const KernelGradient<T>& pass, int64_t large_channel) {
  constexpr int kSize = kVectors * kLanes<T>;
  int64_t channel = 0;
  for (; channel + kSize <= pass.small_channels; channel += kSize) {
    gradient_block<kTaps, kChannels, kVectors>(pass, large_channel, channel, kSize, Whole());
  }
  for (; channel < pass.small_channels; channel += kLanes<T>) {
    const int count = pass.small_channels - channel < kLanes<T> ? pass.small_channels - channel : kLanes<T>;
    if (count == kLanes<T>) {
      gradient_block<kTaps, kChannels, 1>(pass, large_channel, channel, count, Whole());
    } else {
      gradient_block<kTaps, kChannels, 1>(pass, large_channel, channel, count, Part{count});
    }
  }
}

// The gradient by the weights of the large images' channels [begin, end), at most kGradientChannels of them.
template <typename T>
void kernel_gradient(const KernelGradient<T>& pass, int64_t begin, int64_t end) {
  if (end - begin == 4) {
    gradient_channels<2, 4, kAccumulators / 8>(pass, begin);
  } else if (end - begin == 3) {
    gradient_channels<kAccumulators / 4, 3, 1>(pass, begin);
  } else {
    for (int64_t channel = begin; channel < end; ++channel) gradient_channels<4, 1, kAccumulators / 8>(pass, channel);
  }
}

}  // namespace
}  // namespace maskbench
