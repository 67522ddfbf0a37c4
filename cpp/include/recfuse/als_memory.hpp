// What a fit by ALS takes of a device's memory, with or without a device at hand.
#pragma once

#include <cstdint>
#include <vector>

#include "recfuse/als.hpp"
#include "recfuse/sparse_memory.hpp"

namespace recfuse {

struct AlsSizes {
  std::int64_t n_users = 0, n_items = 0, n_entries = 0;
  AlsParams params;  // but for double_precision, which is for tests
};

/// To the byte, but for how rows differ in length: no size tells that, so rows that are summed
/// in parts, and those with systems of their entries, are counted as if there were as many as there can be. Of kAuto,
/// the solver that takes the most. What is in a phase "kept" is there in all others.
std::vector<DeviceBuffer> plan_als(const AlsSizes& sizes, const DeviceShape& device = {});

}  // namespace recfuse
