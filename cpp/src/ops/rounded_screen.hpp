// The screen of rounded numbers, for linear fusions: int8 takes a quarter of the arithmetic and of the memory of
// float32, int16 a half.
#pragma once

#include <cstdint>
#include <vector>

#include "aligned.hpp"
#include "kernels/table.hpp"
#include "ops/candidates.hpp"
#include "ops/query_block.hpp"
#include "ops/rounded_items.hpp"

namespace recfuse {

/// A weighted query v is rounded for every class of items: v = (unit / item unit) * integers + what is lost. Then, with
/// items y = kept + lost,
///   |<v, y> - unit * <integers, integers>| <= sum_m |lost_v| |kept_y| + |v| |lost_y|
/// by Cauchy-Schwarz; sums of integers are exact. Norms are measured in float64 and rounded up, not estimated.
class RoundedScreen {
 public:
  /// Queries [first, last) of a block, rounded for every class.
  struct Packed {
    std::int64_t first, last;
    std::vector<AlignedVector<std::int32_t>> panels;  // per class: panels of 14, and a lower one for the rest
    std::vector<double> units;                        // (queries, classes)
    std::vector<std::int32_t> offsets;                // (queries, classes): what the 128 in the items' bytes adds
    std::vector<double> lost_norms;                   // (queries, classes, modalities)
    std::vector<double> constants;                    // (queries, groups): the product with the centres
  };

  struct Scratch {
    RoundedItems::Scratch tile;
    std::vector<std::int32_t> thresholds;  // of the queries of the block, for the tile at hand
    std::vector<double> bounds;
  };

  RoundedScreen(const Queries& queries, const RoundedItems& items);

  const ScanOrder& order() const { return items_.order(); }
  int panel_queries() const;
  /// The bounds of int8 are wide: several times k stay between them.
  std::int64_t candidates(std::int64_t k) const { return (items_.format() == Format::kInt8 ? 4 : 2) * k + 64; }
  Packed pack(std::int64_t first, std::int64_t last) const;
  void scan(std::size_t tile, const Packed& packed, Scratch& scratch, Candidates& candidates) const;

 private:
  double query_unit(std::int64_t q, int klass) const;
  void round_query(std::int64_t q, int klass, Packed& packed) const;
  double bound(std::int64_t q, std::size_t tile, const RoundedItems::RoundedTile& rounded, const Packed& packed) const;
  std::int32_t threshold(std::int64_t q, std::size_t tile, const Packed& packed, double bound,
                         const Candidates& candidates) const;
  void scan_panel(std::size_t tile, std::int64_t begin, const std::int32_t* panel, std::int64_t query, int height,
                  const Packed& packed, Scratch& scratch, Candidates& candidates) const;

  const Queries& queries_;
  const RoundedItems& items_;
  const kernels::KernelTable& kernels_;
  decltype(kernels::KernelTable::screen_int8) screen_;
};

}  // namespace recfuse
