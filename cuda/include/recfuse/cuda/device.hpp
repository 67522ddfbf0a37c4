// Whether there is a GPU that this library can use.
#pragma once

#include <string>

namespace recfuse::cuda {

/// Why the GPU cannot be used, in words that say what to do; empty where it can. Leaves no error behind.
std::string unusable_reason();

}  // namespace recfuse::cuda
