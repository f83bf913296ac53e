#include "../convolutions.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <tuple>
#include <vector>

#include "simd/kernels.h"

namespace maskbench {
namespace {

using at::Tensor;

// The images of one level of the stack, [N, side + 2, side + 2, channels], within a border of zeros. Level 0 has the
// largest images, each next one half the side.
struct Level {
  int64_t side, channels;
  int64_t row() const { return (side + 2) * channels; }
  int64_t image() const { return (side + 2) * row(); }
  int64_t inside() const { return row() + channels; }  // where the first pixel within the border begins
};

template <typename T>
T leaky(T x, T sign, T slope) {
  return sign > 0 ? x : x * slope;
}

template <typename T>
void clear_border(const Level& level, T* image) {
  const int64_t row = level.row();
  std::fill_n(image, row, T{0});
  for (int64_t y = 1; y <= level.side; ++y) {
    std::fill_n(image + y * row, level.channels, T{0});
    std::fill_n(image + (y + 1) * row - level.channels, level.channels, T{0});
  }
  std::fill_n(image + (level.side + 1) * row, row, T{0});
}

// [channels, side, side] to the inside of a bordered image, LeakyReLU applied to it; and back.
template <typename T>
void pack(const Level& level, const T* from, T slope, T* image) {
  clear_border(level, image);
  const int64_t pixels = level.side * level.side;
  for (int64_t y = 0; y < level.side; ++y) {
    T* to = image + level.inside() + y * level.row();
    for (int64_t x = 0; x < level.side; ++x) {
      const T* pixel = from + y * level.side + x;
      for (int64_t c = 0; c < level.channels; ++c, pixel += pixels) *to++ = leaky(*pixel, *pixel, slope);
    }
  }
}

template <typename T>
void unpack(const Level& level, const T* image, T* to) {
  for (int64_t c = 0; c < level.channels; ++c) {
    for (int64_t y = 0; y < level.side; ++y) {
      const T* from = image + level.inside() + y * level.row() + c;
      for (int64_t x = 0; x < level.side; ++x) *to++ = from[x * level.channels];
    }
  }
}

// Sums over the pixels of a bordered image, [channels].
template <typename T>
void sum_pixels(const Level& level, const T* image, T* sums) {
  const int64_t row = level.side * level.channels;
  std::vector<T> columns(row);
  for (int64_t y = 0; y < level.side; ++y) {
    const T* from = image + level.inside() + y * level.row();
    for (int64_t i = 0; i < row; ++i) columns[i] += from[i];
  }
  std::fill_n(sums, level.channels, T{0});
  for (int64_t i = 0; i < row; i += level.channels) {
    for (int64_t c = 0; c < level.channels; ++c) sums[c] += columns[i + c];
  }
}

// `count` kernels of 16 numbers become 16 rows of `count`; row i gets the numbers order[i].
template <typename T>
void transpose(const T* from, int64_t from_stride, int64_t count, const int (&order)[16], T* to, int64_t to_stride) {
  constexpr int64_t kBlock = 16;  // whole cache lines
  for (int64_t start = 0; start < count; start += kBlock) {
    const int64_t size = std::min(kBlock, count - start);
    T block[16][kBlock];
    for (int64_t i = 0; i < size; ++i, from += from_stride) {
      for (int tap = 0; tap < 16; ++tap) block[tap][i] = from[tap];
    }
    for (int tap = 0; tap < 16; ++tap) {
      std::memcpy(to + tap * to_stride + start, block[order[tap]], size * sizeof(T));
    }
  }
}

// The weights [small channels, large channels, 4, 4] as the kernels read them on the way to smaller images,
// [4, 4, large channels, small channels].
template <typename T>
void order_down(const Level& large, const Level& small, const T* weight, T* ordered) {
  constexpr int kAsTheyAre[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int64_t l = 0; l < large.channels; ++l) {
    transpose(weight + 16 * l, 16 * large.channels, small.channels, kAsTheyAre, ordered + l * small.channels,
              large.channels * small.channels);
  }
}

// On the way back each kind of pixel, at the places (2 y + p, 2 x + q) of the large image, gets what 2 x 2 of the
// kernel's numbers make of its neighbours s, t = 0, 1 in the small one: those in the row 3 - p - 2 s, the column
// 3 - q - 2 t. [2 p, 2 q, 2 s, 2 t, small channels, large channels].
template <typename T>
void order_up(const Level& large, const Level& small, const T* weight, T* ordered) {
  constexpr int kByKind[16] = {15, 13, 7, 5, 14, 12, 6, 4, 11, 9, 3, 1, 10, 8, 2, 0};
  const int64_t count = large.channels * small.channels;
  transpose(weight, 16, count, kByKind, ordered, count);
}

// Few channels of the large image leave the vectors empty: then all four kinds of pixels at once, which together have
// 3 x 3 neighbours. [3, 3, small channels, 2 p, 2 q, large channels].
bool together(const Level& large) { return large.channels <= 4; }

template <typename T>
void order_up_together(const Level& large, const Level& small, const T* weight, T* ordered) {
  const int64_t channels = 4 * large.channels;
  std::fill_n(ordered, 9 * small.channels * channels, T{0});
  for (int row = 0; row < 4; ++row) {
    for (int column = 0; column < 4; ++column) {
      const int p = (3 - row) % 2, q = (3 - column) % 2, y = p + (3 - row) / 2, x = q + (3 - column) / 2;
      T* to = ordered + (3 * y + x) * small.channels * channels + (2 * p + q) * large.channels;
      for (int64_t k = 0; k < small.channels; ++k) {
        for (int64_t l = 0; l < large.channels; ++l) {
          to[k * channels + l] = weight[(k * large.channels + l) * 16 + 4 * row + column];
        }
      }
    }
  }
}

// What a convolution does to its sums: bias, unless null; LeakyReLU, by their own sign or by that of `sign`.
template <typename T>
struct Behind {
  const T* bias;
  T slope;
  const T* sign;
};

template <typename T>
void go_down(const Level& large, const Level& small, const T* from, const T* ordered, Behind<T> behind, T* to) {
  clear_border(small, to);
  kernels_of<T>().convolve({small.side, small.side, small.channels, from, 2 * large.row(), 2 * large.channels, 4,
                            large.row(), 4 * large.channels, ordered, behind.bias, behind.slope,
                            behind.sign ? behind.sign + small.inside() : nullptr, to + small.inside(), small.row(),
                            small.channels});
}

template <typename T>
void go_up_together(const Level& large, const Level& small, const T* from, const T* ordered, Behind<T> behind, T* to) {
  const int64_t pair = 2 * large.channels, channels = 2 * pair;
  std::vector<T> bias(channels), pixels(small.side * small.side * channels);
  for (int64_t i = 0; behind.bias && i < channels; ++i) bias[i] = behind.bias[i % large.channels];
  kernels_of<T>().convolve({small.side, small.side, channels, from, small.row(), small.channels, 3, small.row(),
                            3 * small.channels, ordered, bias.data(), 1, nullptr, pixels.data(), small.side * channels,
                            channels});
  for (int64_t y = 0; y < large.side; ++y) {
    const int64_t place = large.inside() + y * large.row();
    for (int64_t x = 0; x < small.side; ++x) {
      const T* pixel = pixels.data() + (y / 2 * small.side + x) * channels + y % 2 * pair;
      for (int64_t c = 0; c < pair; ++c) {
        const int64_t i = place + x * pair + c;
        to[i] = leaky(pixel[c], behind.sign ? behind.sign[i] : pixel[c], behind.slope);
      }
    }
  }
}

template <typename T>
void go_up(const Level& large, const Level& small, const T* from, const T* ordered, Behind<T> behind, T* to) {
  clear_border(large, to);
  if (together(large)) return go_up_together(large, small, from, ordered, behind, to);
  for (int64_t kind = 0; kind < 4; ++kind) {
    const int64_t p = kind / 2, q = kind % 2, place = large.inside() + p * large.row() + q * large.channels;
    kernels_of<T>().convolve({small.side, small.side, large.channels, from + p * small.row() + q * small.channels,
                              small.row(), small.channels, 2, small.row(), 2 * small.channels,
                              ordered + kind * 4 * small.channels * large.channels, behind.bias, behind.slope,
                              behind.sign ? behind.sign + place : nullptr, to + place, 2 * large.row(),
                              2 * large.channels});
  }
}

// A stack of convolutions towards smaller images ("down"), LeakyReLU behind each, or of transposed ones towards larger
// images ("up"), LeakyReLU before each. Both have weights [channels of the small, of the large images, 4, 4], and the
// backward pass of one is the forward pass of the other.
template <typename T>
class Stack {
 public:
  // side: of the images that go in.
  Stack(int64_t images, int64_t side, at::TensorList weights, double slope, bool up)
      : images(images), layers(weights.size()), up(up), slope(static_cast<T>(slope)) {
    for (size_t i = 0; i < layers; ++i) kernels.push_back(weights[up ? layers - 1 - i : i].contiguous());
    side = up ? side << layers : side;
    for (size_t i = 0; i < layers; ++i) levels.push_back({side >> i, kernels[i].size(1)});
    levels.push_back({side >> layers, kernels.back().size(0)});
  }

  const Level& of_input() const { return levels[up ? layers : 0]; }
  const Level& of_output() const { return levels[up ? 0 : layers]; }
  size_t large_of(size_t layer) const { return up ? layers - 1 - layer : layer; }  // the small one is the next level

  // Images of all levels lie one level after another.
  int64_t begin(size_t level) const {
    int64_t before = 0;
    for (size_t i = 0; i < level; ++i) before += levels[i].image();
    return images * before;
  }
  int64_t size() const { return begin(levels.size()); }

  // [N, channels, side, side] -> the same of the last level; the images of all levels stay in `kept`.
  void forward(const T* x, at::TensorList biases, T* kept, T* y) const {
    std::vector<std::vector<T>> ordered;
    for (size_t layer = 0; layer < layers; ++layer) ordered.push_back(ordered_for(large_of(layer), !up));
    at::parallel_for(0, images, 1, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        pack(of_input(), x + n * numbers(of_input()), up ? slope : 1, image(kept, up ? layers : 0, n));
        for (size_t layer = 0; layer < layers; ++layer) {
          const bool is_last = layer + 1 == layers;
          convolve(layer, !up, n, kept, ordered[layer].data(),
                   {biases[layer].template const_data_ptr<T>(), up && is_last ? 1 : slope, nullptr});
        }
        unpack(of_output(), image(kept, up ? 0 : layers, n), y + n * numbers(of_output()));
      }
    });
  }

  // dx may be null.
  void backward(const T* dy, const T* kept, T* gradients, T* dx, at::TensorList dweights,
                at::TensorList dbiases) const {
    std::vector<std::vector<T>> ordered(layers), sums(layers);
    for (size_t layer = 0; layer < layers; ++layer) {
      if (layer > 0 || dx) ordered[layer] = ordered_for(large_of(layer), up);
      sums[layer].resize(images * dbiases[layer].numel());
    }
    at::parallel_for(0, images, 1, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        T* const d = image(gradients, up ? 0 : layers, n);
        pack<T>(of_output(), dy + n * numbers(of_output()), 1, d);
        const T* sign = image(kept, layers, n);
        for (int64_t i = 0; !up && i < of_output().image(); ++i) d[i] = leaky(d[i], sign[i], slope);
        for (size_t layer = layers; layer-- > 0;) {
          const size_t large = large_of(layer), written = up ? large : large + 1, read = up ? large + 1 : large;
          sum_pixels(levels[written], image(gradients, written, n), sums[layer].data() + n * dbiases[layer].numel());
          if (layer == 0 && !dx) break;
          const bool activated = up || layer > 0;
          convolve(layer, up, n, gradients, ordered[layer].data(),
                   {nullptr, activated ? slope : 1, activated ? image(kept, read, n) : nullptr});
        }
        if (dx) unpack(of_input(), image(gradients, up ? layers : 0, n), dx + n * numbers(of_input()));
      }
    });
    for (size_t layer = 0; layer < layers; ++layer) {
      const int64_t channels = dbiases[layer].numel();
      T* to = dbiases[layer].template mutable_data_ptr<T>();
      std::fill_n(to, channels, T{0});
      for (int64_t i = 0; i < images * channels; ++i) to[i % channels] += sums[layer][i];
    }
    weight_gradients(kept, gradients, dweights);
  }

  static int64_t numbers(const Level& level) { return level.channels * level.side * level.side; }

 private:
  template <typename U>
  U* image(U* all, size_t level, int64_t n) const {
    return all + begin(level) + n * levels[level].image();
  }

  std::vector<T> ordered_for(size_t large, bool down) const {
    const Level &of_large = levels[large], &of_small = levels[large + 1];
    const bool at_once = !down && together(of_large);
    std::vector<T> ordered((at_once ? 36 : 16) * of_large.channels * of_small.channels);
    (down      ? order_down<T>
     : at_once ? order_up_together<T>
               : order_up<T>)(of_large, of_small, kernels[large].template const_data_ptr<T>(), ordered.data());
    return ordered;
  }

  void convolve(size_t layer, bool down, int64_t n, T* all, const T* ordered, Behind<T> behind) const {
    const size_t large = large_of(layer), from = down ? large : large + 1, to = down ? large + 1 : large;
    (down ? go_down<T> : go_up<T>)(levels[large], levels[large + 1], image(all, from, n), ordered, behind,
                                   image(all, to, n));
  }

  void weight_gradients(const T* kept, const T* gradients, at::TensorList dweights) const {
    struct Task {
      size_t layer;
      int64_t begin, end;
    };
    std::vector<KernelGradient<T>> passes;
    std::vector<Task> tasks;
    for (size_t layer = 0; layer < layers; ++layer) {
      const size_t large = large_of(layer);
      const Level &of_large = levels[large], &of_small = levels[large + 1];
      passes.push_back(
          {images, of_small.side, of_large.channels, of_small.channels, (up ? gradients : kept) + begin(large),
           (up ? kept : gradients) + begin(large + 1) + of_small.inside(), of_large.image(), of_small.image(),
           of_large.row(), of_small.row(), dweights[layer].template mutable_data_ptr<T>()});
      for (int64_t channel = 0; channel < of_large.channels; channel += kGradientChannels) {
        tasks.push_back({layer, channel, std::min(channel + kGradientChannels, of_large.channels)});
      }
    }
    const auto work = [&](const Task& task) {
      const KernelGradient<T>& pass = passes[task.layer];
      return (task.end - task.begin) * pass.side * pass.side * pass.small_channels;
    };
    std::stable_sort(tasks.begin(), tasks.end(), [&](const Task& a, const Task& b) { return work(a) > work(b); });
    // of unequal size: who is free takes the largest that is left
    std::atomic<size_t> next{0};
    at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
      for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks.size();) {
        kernels_of<T>().kernel_gradient(passes[tasks[i].layer], tasks[i].begin, tasks[i].end);
      }
    });
  }

  int64_t images;
  size_t layers;
  bool up;
  T slope;
  std::vector<Tensor> kernels;  // [i] between the levels i and i + 1
  std::vector<Level> levels;
};

// The result, and the images of all levels for the backward pass.
std::tuple<Tensor, Tensor> convolutions_forward(const Tensor& x_, at::TensorList weights, at::TensorList biases_,
                                                double slope, bool up) {
  check_convolutions(x_, weights, biases_, slope, up);
  const Tensor x = x_.contiguous();
  std::vector<Tensor> biases;
  for (const Tensor& bias : biases_) biases.push_back(bias.contiguous());
  Tensor y, kept;
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "convolutions_forward", [&] {
    const Stack<scalar_t> stack(x.size(0), x.size(2), weights, slope, up);
    const Level& of_y = stack.of_output();
    y = at::empty({x.size(0), of_y.channels, of_y.side, of_y.side}, x.options());
    kept = at::empty({stack.size()}, x.options());
    stack.forward(x.const_data_ptr<scalar_t>(), biases, kept.mutable_data_ptr<scalar_t>(),
                  y.mutable_data_ptr<scalar_t>());
  });
  return {y, kept};
}

// Gradients by x, undefined where it is not wanted, the weights and the biases.
std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>> convolutions_backward(const Tensor& dy_,
                                                                                   const Tensor& kept,
                                                                                   at::TensorList weights, double slope,
                                                                                   bool up, bool want_dx) {
  const int64_t layers = static_cast<int64_t>(weights.size());
  Tensor dx;
  std::vector<Tensor> dweights, dbiases;
  check_convolutions_backward(dy_, kept, weights, up);
  const Tensor dy = dy_.contiguous();
  for (const Tensor& weight : weights) {
    dweights.push_back(at::empty(weight.sizes(), dy.options()));
    dbiases.push_back(at::empty({weight.size(up ? 1 : 0)}, dy.options()));
  }
  AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "convolutions_backward", [&] {
    const int64_t side = up ? dy.size(2) >> layers : dy.size(2) << layers;
    const Stack<scalar_t> stack(dy.size(0), side, weights, slope, up);
    TORCH_CHECK_VALUE(kept.numel() == stack.size(), "kept must be the ", stack.size(),
                      " numbers of convolutions_forward, got ", kept.numel());
    if (want_dx) dx = at::empty({dy.size(0), stack.of_input().channels, side, side}, dy.options());
    const Tensor gradients = at::empty({stack.size()}, dy.options());
    stack.backward(dy.const_data_ptr<scalar_t>(), kept.const_data_ptr<scalar_t>(),
                   gradients.mutable_data_ptr<scalar_t>(), want_dx ? dx.mutable_data_ptr<scalar_t>() : nullptr,
                   dweights, dbiases);
  });
  return {dx, dweights, dbiases};
}

}  // namespace

TORCH_LIBRARY_IMPL(maskbench, CPU, m) {
  m.impl("convolutions_forward", &convolutions_forward);
  m.impl("convolutions_backward", &convolutions_backward);
}

}  // namespace maskbench
