// What a step of Adam is told: see adam_step_inl.h.
#pragma once

#include <cstdint>

namespace maskbench {

struct AdamW {
  double lr, beta1, beta2, epsilon, weight_decay;
  int64_t steps;  // that were taken already
};

}  // namespace maskbench
