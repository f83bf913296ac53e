#pragma once

namespace maskbench {

constexpr int kThreads = 256;  // of a block, in every kernel

}  // namespace maskbench
