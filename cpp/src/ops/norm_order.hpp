// Items from the longest down: thresholds rise at once, and queries are done where items are too short for them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/fused_items.hpp"

namespace recfuse {

/// What a sample says about the norms of the items, as its queries see them.
struct NormOrder {
  bool pays = false;
  double skipped = -1;         // share of the pairs of query and item that norms alone rule out; -1 where nobody asked
  std::vector<double> shares;  // per modality: the norm of an average query, weighted

  /// What an item is ordered by.
  double size(const FusedItems& items, std::int32_t id) const {
    double size = 0;
    for (std::size_t m = 0; m < shares.size(); ++m) size += shares[m] * items.screen_norm(id, static_cast<int>(m));
    return size;
  }
};

/// A few queries look at the longest items: what their k-th score reaches is out of reach of how many others? Where
/// norms are alike, nothing is scored.
NormOrder sample_norms(const FusedItems& items, const FuseTopkArgs& args);

/// Sorts ids from the largest item down, to within 1/64 of its size; ids rise where that is the same.
void sort_by_size(const FusedItems& items, const NormOrder& order, std::span<std::int32_t> ids);

}  // namespace recfuse
