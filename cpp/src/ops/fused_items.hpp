// Items of several modalities as the screen needs them: norms, and tiles of items with the same modalities present.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/table.hpp"
#include "recfuse/fuse_topk.hpp"
#include "recfuse/presence.hpp"

namespace recfuse {

/// A run of items of one group, in the order of the scan.
struct Tile {
  std::int64_t begin;  // positions in ScanOrder::ids
  std::int64_t end;
  int group;
};

/// What one call scans: tiles of admissible, regular items.
struct ScanOrder {
  std::vector<std::int32_t> ids;
  std::vector<Tile> tiles;
  std::vector<float> tile_norms;            // (tiles, modalities): the largest screen norm in the tile
  std::vector<std::int32_t> irregular_ids;  // scored canonically for every query
  bool scattered = false;                   // of some items only: their rows lie apart in memory
};

class FusedItems {
 public:
  explicit FusedItems(const FusedItemsArgs& args);

  const FusedItemsArgs& args() const { return args_; }
  std::int64_t n_items() const { return args_.items[0].rows; }
  int n_modalities() const { return static_cast<int>(args_.items.size()); }
  std::int64_t total_dim() const { return total_dim_; }
  const MatrixView<const float>& matrix(int m) const { return args_.items[static_cast<std::size_t>(m)]; }
  bool cosine() const { return args_.metric == Metric::kCosine; }
  const std::vector<PresenceGroup>& groups() const { return groups_; }
  int group_of(std::int32_t id) const { return group_of_.empty() ? 0 : group_of_[static_cast<std::size_t>(id)]; }

  /// 1 / |x_m|, for the canonical cosine.
  double inverse_norm_of(std::int32_t id, int m) const { return inverse_norms_[offset(id, m)]; }
  /// At least the norm of what the screen multiplies: |x_m|, or 1 for the cosine; 0 where missing.
  float screen_norm(std::int32_t id, int m) const { return screen_norms_[offset(id, m)]; }

  /// Has the beginning of an item's row brought to the caches.
  void fetch(std::int32_t id) const {
    constexpr std::int64_t kMostFloats = 128, kLineFloats = 16;
    const float* const row = matrix(0).row(id);
    for (std::int64_t j = 0; j < std::min(matrix(0).cols, kMostFloats); j += kLineFloats) __builtin_prefetch(row + j);
  }

  /// Whether the item leaves the range of the screen, or has an infinity or a NaN.
  bool irregular(std::int32_t id) const { return irregular_[static_cast<std::size_t>(id)] != 0; }

  /// The scan of all items.
  ScanOrder scan_order(std::int64_t tile_items) const;
  /// Of those in `allowed` (rising ids) only.
  ScanOrder scan_order(std::int64_t tile_items, std::span<const std::int32_t> allowed) const;

  /// Interleaves tile items [begin, end) of the scan, at most nr, all modalities behind one another.
  void pack(const kernels::KernelTable& kernels, const ScanOrder& order, const Tile& tile, std::int64_t begin,
            std::int64_t end, float* panel) const;

 private:
  std::size_t offset(std::int32_t id, int m) const {
    return static_cast<std::size_t>(id) * static_cast<std::size_t>(n_modalities()) + static_cast<std::size_t>(m);
  }
  void measure_norms();
  std::vector<std::size_t> sort_by_group(std::vector<std::int32_t>& ids) const;

  std::vector<MatrixView<const float>> matrices_;
  std::vector<std::string> names_;
  FusedItemsArgs args_;
  std::int64_t total_dim_ = 0;
  std::vector<PresenceGroup> groups_;
  std::vector<std::int32_t> group_of_;  // empty where there is one group
  std::vector<double> inverse_norms_;
  std::vector<float> screen_norms_;
  std::vector<char> irregular_;
};

/// Norms outside leave the range in which the screen's float32 error bound holds.
inline bool in_screen_range(double norm) { return norm == 0.0 || (norm >= 0x1p-50 && norm <= 0x1p50); }

}  // namespace recfuse
