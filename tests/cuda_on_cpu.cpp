// The device code of the CUDA kernels as a library for tests/test_cuda_on_cpu.py; as a program, the kernels by
// themselves, for ThreadSanitizer, with the planted fault that its argument names.
#include "cuda_on_cpu.h"

#include <cstdlib>
#include <cstring>

extern "C" {
int planted = 0;  // the number of a fault that the test has written into the kernels
}

#include "bce_kernel.h"
#include "sample_prior_kernel.h"

// A kernel in a grid of so many blocks, of which these run, in this order.
auto launcher(int64_t grid, const int64_t* blocks, int64_t running) {
  return [=](auto kernel, auto... arguments) { launch(grid, blocks, running, [&] { kernel(arguments...); }); };
}

template <typename T>
void bce_forward(const T* real, const T* fake, int64_t count, int64_t parts, int64_t rows, int64_t grid,
                 const int64_t* blocks, int64_t running, T* gradients, T* loss, double* sums, unsigned int* ticket) {
  const auto zero = [](void* memory, size_t bytes) { std::memset(memory, 0, bytes); };
  maskbench::launch_bce_forward(real, fake, count, parts, rows, grid, gradients, loss, sums, ticket, zero,
                                launcher(grid, blocks, running));
}

// Whether there is a loss of one part or two, by a grid of one block or three.
template <typename T>
bool has_loss(int64_t parts, int64_t grid) {
  constexpr int64_t rows = 700;
  const int64_t blocks[] = {0, 2, 1};
  T logits[rows], gradients[2 * rows], loss = 0;
  for (int64_t row = 0; row < rows; ++row) logits[row] = static_cast<T>(row - rows / 2);
  double sums[3];
  unsigned int ticket = 7;
  bce_forward(logits, logits, rows, parts, rows, grid, blocks, grid, gradients, &loss, sums, &ticket);
  return loss > 0;
}

extern "C" {

int64_t blocks_for(int64_t work, int64_t most) { return maskbench::blocks_for(work, most); }

void sample_prior(const int64_t* rng_state, int64_t batch, int64_t gaussian_dim, int64_t categories, int64_t first_row,
                  int64_t grid, const int64_t* blocks, int64_t running, float* gaussian, float* one_hot) {
  maskbench::launch_draw_rows(rng_state, static_cast<uint64_t>(first_row), batch, gaussian_dim, categories, grid,
                              gaussian, one_hot, launcher(grid, blocks, running));
}

void bce_forward_float(const float* real, const float* fake, int64_t count, int64_t parts, int64_t rows, int64_t grid,
                       const int64_t* blocks, int64_t running, float* gradients, float* loss, double* sums,
                       unsigned int* ticket) {
  bce_forward(real, fake, count, parts, rows, grid, blocks, running, gradients, loss, sums, ticket);
}

void bce_forward_double(const double* real, const double* fake, int64_t count, int64_t parts, int64_t rows,
                        int64_t grid, const int64_t* blocks, int64_t running, double* gradients, double* loss,
                        double* sums, unsigned int* ticket) {
  bce_forward(real, fake, count, parts, rows, grid, blocks, running, gradients, loss, sums, ticket);
}

}  // extern "C"

int main(int, char** arguments) {
  planted = atoi(arguments[1]);
  bool right = true;
  for (int64_t parts = 1; parts <= 2; ++parts) {
    for (int64_t grid = 1; grid <= 3; grid += 2) right &= has_loss<float>(parts, grid) && has_loss<double>(parts, grid);
  }
  const int64_t rng_state[] = {1, 2}, blocks[] = {1, 0, 2};
  float gaussian[7 * 30], one_hot[7 * 5];
  sample_prior(rng_state, 7, 30, 5, 0, 3, blocks, 3, gaussian, one_hot);
  return right && one_hot[0] >= 0 ? 0 : 1;
}
