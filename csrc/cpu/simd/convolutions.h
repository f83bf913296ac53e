// What the convolutions are told: see convolutions_inl.h.
#pragma once

#include <cstdint>

namespace maskbench {

// A convolution of 4 x 4, stride 2, padding 1, over one image, or one of the four that make up its transpose: sums over
// stretches of memory, a bias, LeakyReLU. Channels are last.
template <typename T>
struct Convolution {
  int64_t height, width, channels;  // of what is written
  const T* from;
  int64_t from_row, from_pixel;     // from what one written row, or pixel, reads to what the next reads
  int64_t stretches, from_stretch;  // how many stretches a pixel reads; from one to the next
  int64_t length;                   // of a stretch, in numbers
  const T *weight, *bias;           // [stretches, length, channels], [channels] or null
  T slope;
  const T* sign;  // as `to`, or null: what LeakyReLU's derivative depends on, in a backward pass
  T* to;
  int64_t to_row, to_pixel;
};

// The gradient by its weights, from the large image and the gradient by the small one, or the other way round.
template <typename T>
struct KernelGradient {
  int64_t images, side, large_channels, small_channels;  // side: of the small images
  const T *large, *small;                                // at their first pixels: in the border, and within it
  int64_t large_image, small_image, large_row, small_row;
  T* gradient;  // [small_channels, large_channels, 4, 4]
};

constexpr int64_t kGradientChannels = 4;

}  // namespace maskbench
