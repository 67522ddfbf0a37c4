// Which items point where others do: a query that looks at those first knows what its list reaches before it scans.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/fused_items.hpp"

namespace recfuse {

/// Items of one modality by the nearest of some centres, for the cosine.
struct Neighbourhoods {
  std::vector<float> centres;         // unit vectors
  std::vector<std::uint8_t> of_item;  // by id

  bool any() const { return !of_item.empty(); }
  static constexpr std::size_t n_centres() { return 128; }
};

/// A list that is longer gains little by a threshold that has no bound.
constexpr std::int64_t kMostNearList = 32;

/// None where items point everywhere, so that the nearest centre says little, and where a search would gain nothing.
Neighbourhoods find_neighbourhoods(const FusedItems& items);

/// Sorts ids by neighbourhood; ids rise within each.
void sort_by_neighbourhood(const Neighbourhoods& neighbourhoods, std::span<std::int32_t> ids);

}  // namespace recfuse
