// The inner loops, compiled once for each instruction set and picked at run time. All copies give the same bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#if defined(__x86_64__)
#define MASKBENCH_X86
#endif

namespace maskbench {

// Where the rows of one draw come from and go to.
struct PriorDraw {
  uint64_t seed, offset, first_row;
  int64_t gaussian_dim, categories;
  float* gaussian;
  float* one_hot;
};

struct Kernels {
  const char* name;
  // Writes rows [begin, end) of a draw.
  void (*draw_rows)(const PriorDraw& draw, int64_t begin, int64_t end);
  // Returns the sum of the losses of `count` logits, against the label 1 where `sign` is -1 and 0 where it is 1;
  // writes scale times the derivatives.
  float (*bce_float)(const float* logits, float sign, float scale, int64_t count, float* gradients);
  double (*bce_double)(const double* logits, double sign, double scale, int64_t count, double* gradients);
};

extern const Kernels kPlainKernels;
#ifdef MASKBENCH_X86
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

// What runs: the widest instruction set of this processor, unless a test has chosen another.
const Kernels& kernels();

// Names of what was compiled, widest first; whether this processor runs it; and the tests' choice, which raises
// ValueError where it does not.
std::vector<std::string> compiled_kernels();
void use_kernels(const std::string& name);

}  // namespace maskbench
