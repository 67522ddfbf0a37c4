// Which kernel scans: by how many queries there are, and by what the device can do. All give the same answers.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "screen.cuh"
#include "screen_hopper.cuh"

namespace recfuse::cuda {

/// Whether scans may use what compute capability 9.0 alone has. RECFUSE_CUDA_ISA forces it, or the portable kernels.
inline bool uses_hopper(bool works_here) {
  const char* const name = std::getenv("RECFUSE_CUDA_ISA");
  if (name == nullptr || *name == '\0') return works_here;
  const std::string forced = name;
  if (forced == "sm_80") return false;
  if (forced == "sm_90a" && works_here) return true;
  throw std::invalid_argument(std::string("RECFUSE_CUDA_ISA must be one of those that this device runs (") +
                              (works_here ? "sm_90a, " : "") + "sm_80); got '" + forced + "'");
}

template <class Device>
const char* screen_isa(const Device& device) {
  return uses_hopper(device.has_hopper()) ? "sm_90a" : "sm_80";
}

/// Calls f(std::type_identity<Body>) for the kernel to launch.
template <class Device, class F>
auto with_screen(const Device& device, bool few_queries, F&& f) {
  const bool hopper = uses_hopper(device.has_hopper());
  if (few_queries) return f(std::type_identity<ScreenFew>{});
  const std::size_t shared = device.most_shared_bytes();
  if (hopper && shared >= HopperScreen::kSharedBytes) return f(std::type_identity<HopperScreen>{});
  if (shared >= ScreenMany::kSharedBytes) return f(std::type_identity<ScreenMany>{});
  return f(std::type_identity<ScreenSome>{});
}

}  // namespace recfuse::cuda
