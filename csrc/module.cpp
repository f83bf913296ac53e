// What is of no op alone: the library's name and facts about the build. Each op's schema, checks and autograd are in
// the file of its name here, its kernels in those in cpu/ and cuda/, its fake in maskbench.ops.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/library.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/simd/kernels.h"
#include "philox.h"

#ifdef WITH_CUDA
#include <cuda.h>
#endif

namespace maskbench {
namespace {

// maskbench.ops looks for these bytes in the file before it loads it. Used: else a compiler may keep them in pieces,
// within instructions.
[[gnu::used]] const char kBuiltFor[] = "maskbench._C built for torch " MASKBENCH_TORCH_VERSION;

pybind11::dict build_info() {
  pybind11::dict info;
  info["built_for"] = kBuiltFor;
#ifdef __clang__
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["simd_compiled"] = compiled_kernels();
  info["simd_in_use"] = kernels().name;
#ifdef WITH_CUDA
  info["cuda"] = std::to_string(CUDA_VERSION / 1000) + "." + std::to_string(CUDA_VERSION % 1000 / 10);
  info["cuda_architectures"] = MASKBENCH_CUDA_ARCHITECTURES;
#else
  info["cuda"] = pybind11::none();
#endif
  return info;
}

// For the tests' known answers: the four words of a block.
std::vector<uint32_t> philox_words(uint64_t seed, uint64_t offset, uint64_t block) {
  const auto words = Stream<>(seed, offset).words(block);
  return {static_cast<uint32_t>(words.w0), static_cast<uint32_t>(words.w1), static_cast<uint32_t>(words.w2),
          static_cast<uint32_t>(words.w3)};
}

}  // namespace

// Empty: the ops add themselves as fragments. It keeps a second library from taking the name.
TORCH_LIBRARY(maskbench, m) {}

}  // namespace maskbench

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("build_info", &maskbench::build_info);
  m.def("philox_words", &maskbench::philox_words);
  m.def("use_kernels", &maskbench::use_kernels);
}
