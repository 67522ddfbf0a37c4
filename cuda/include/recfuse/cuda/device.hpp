// Which GPUs there are, and whether this library can use them.
#pragma once

#include <string>

namespace recfuse::cuda {

/// Why a GPU cannot be used, in words that say what to do; empty where it can. Leaves no error behind.
std::string unusable_reason(int device = 0);
/// 0 where there is no driver, or none that works.
int device_count();
std::string device_name(int device);

}  // namespace recfuse::cuda
