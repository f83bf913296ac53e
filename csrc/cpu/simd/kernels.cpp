#include "kernels.h"

#include <c10/util/Exception.h>

#include <atomic>

namespace maskbench {
namespace {

struct Candidate {
  const Kernels* kernels;
  bool runs;
};

// widest first; the last one runs everywhere
const std::vector<Candidate>& candidates() {
  static const std::vector<Candidate> all = {
#ifdef MASKBENCH_X86
      {&kAvx512Kernels, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("fma")},
      {&kAvx2Kernels, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
      {&kPlainKernels, true},
  };
  return all;
}

const Kernels* widest() {
  for (const Candidate& candidate : candidates()) {
    if (candidate.runs) return candidate.kernels;
  }
  return &kPlainKernels;
}

std::atomic<const Kernels*>& chosen() {
  static std::atomic<const Kernels*> kernels{widest()};
  return kernels;
}

}  // namespace

const Kernels& kernels() { return *chosen().load(std::memory_order_relaxed); }

std::vector<std::string> compiled_kernels() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates()) names.emplace_back(candidate.kernels->name);
  return names;
}

void use_kernels(const std::string& name) {
  for (const Candidate& candidate : candidates()) {
    if (name == candidate.kernels->name) {
      TORCH_CHECK_VALUE(candidate.runs, "this processor does not run the ", name, " kernels");
      chosen() = candidate.kernels;
      return;
    }
  }
  TORCH_CHECK_VALUE(false, "there are no ", name, " kernels");
}

}  // namespace maskbench
