// The items that queries must not get, as bits for the kernel of the rounded screen.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "aligned.hpp"
#include "ops/rounded_items.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

/// The exclusions of a block of queries, marked for a tile and a panel of queries at a time: their bits stay in L1. A
/// worker has one.
class RefusedItems {
 public:
  /// For the queries [first, last).
  void start(const RoundedItems& items, const CsrView& exclude, std::int64_t first, std::int64_t last);

  /// A bit for every item of a tile that a query must not get: as [panel][query], for those of these rows of the block.
  /// `disallowed`: as [panel], what nobody may get, or null. Valid until the next call.
  const std::uint32_t* mark(const RoundedItems& items, std::size_t tile, const std::uint32_t* disallowed,
                            std::span<const std::int32_t> rows);

 private:
  std::int64_t first_ = -1;
  std::vector<std::uint32_t> slots_;   // of the exclusions, query by query
  std::vector<std::size_t> begins_;    // per query, and how many there are
  std::vector<std::uint32_t> places_;  // of a query, in a tile
  AlignedVector<std::uint32_t> words_;
};

}  // namespace recfuse
