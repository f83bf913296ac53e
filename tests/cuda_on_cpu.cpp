// The device code of the CUDA kernels as a library for tests/test_cuda_on_cpu.py; as a program, both kernels once, for
// ThreadSanitizer.
#include "cuda_on_cpu.h"

#include <numeric>

#include "bce_kernel.h"
#include "sample_prior_kernel.h"

// As csrc/cuda/bce.cu launches it; a block for each number in `blocks`, in this order.
template <typename T>
void bce_forward(const T* real, const T* fake, int64_t count, int64_t parts, int64_t rows, int64_t grid,
                 const int64_t* blocks, T* gradients, T* loss) {
  std::vector<double> sums(grid);
  unsigned int ticket = 0;
  launch(grid, {blocks, blocks + grid}, [&] {
    maskbench::bce_forward_kernel<T>(real, fake, count, parts, T{1} / static_cast<T>(rows), static_cast<double>(rows),
                                     gradients, loss, sums.data(), &ticket);
  });
}

extern "C" {

// As csrc/cuda/sample_prior.cu launches it; only these blocks of the grid.
void sample_prior(const int64_t* rng_state, int64_t batch, int64_t gaussian_dim, int64_t categories, int64_t first_row,
                  int64_t grid, const int64_t* blocks, int64_t count, float* gaussian, float* one_hot) {
  const int64_t quads = maskbench::quads_of_row(gaussian_dim, categories);
  launch(grid, {blocks, blocks + count}, [&] {
    maskbench::draw_rows(rng_state, static_cast<uint64_t>(first_row), batch, gaussian_dim, categories,
                         grid * maskbench::kThreads / quads, grid * maskbench::kThreads % quads, gaussian, one_hot);
  });
}

void bce_forward_float(const float* real, const float* fake, int64_t count, int64_t parts, int64_t rows, int64_t grid,
                       const int64_t* blocks, float* gradients, float* loss) {
  bce_forward(real, fake, count, parts, rows, grid, blocks, gradients, loss);
}

void bce_forward_double(const double* real, const double* fake, int64_t count, int64_t parts, int64_t rows,
                        int64_t grid, const int64_t* blocks, double* gradients, double* loss) {
  bce_forward(real, fake, count, parts, rows, grid, blocks, gradients, loss);
}

}  // extern "C"

int main() {
  const int64_t rows = 700, blocks[] = {1, 0, 2};
  std::vector<float> logits(rows), gradients(2 * rows), gaussian(7 * 30), one_hot(7 * 5);
  std::iota(logits.begin(), logits.end(), -350.0f);
  float loss = 0;
  bce_forward(logits.data(), logits.data(), rows, 2, rows, 3, blocks, gradients.data(), &loss);
  const int64_t rng_state[] = {1, 2};
  sample_prior(rng_state, 7, 30, 5, 0, 3, blocks, 3, gaussian.data(), one_hot.data());
  return loss > 0 && one_hot[0] >= 0 ? 0 : 1;
}
