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

/// What of a side's interactions is on a device at a time, at most, where they are streamed.
struct AlsPiece {
  std::int64_t rows = 0, entries = 0;
  std::int64_t most_pieces = 0;  // of the side
};

/// What there is for a fit. Tests shrink it.
struct AlsRoom {
  std::int64_t device_bytes = kUnlimitedBytes;  // of which a 64th is left, for what allocators round up
  std::int64_t piece_entries = 16 << 20;        // more at a time would hide no more of the copies
};

struct AlsPlan {
  bool streamed = false;
  AlsPiece users, items;
  std::vector<DeviceBuffer> buffers;
};

/// Interactions are resident where that fits, else streamed in the largest pieces that do, or in the smallest that
/// there are. To the byte, but for how rows differ in length: no size tells that, so rows that
/// are summed in parts, those with systems of their entries, and pieces are counted as if there were as many as there
/// can be. Of kAuto, the solver that takes the most. What is in a phase "kept" is there in all others.
AlsPlan plan_als(const AlsSizes& sizes, const DeviceShape& device = {}, const AlsRoom& room = {});

/// What the interactions of so many rows and entries take on the device: where rows begin, ids, values, an order.
constexpr std::int64_t packed_bytes(std::int64_t rows, std::int64_t entries) {
  return 8 * (rows + 1) + 8 * entries + 4 * rows;
}

}  // namespace recfuse
