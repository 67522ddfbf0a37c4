// A second screen, for the pairs of a query and an item that int8 could not tell apart: int16, a fiftieth of the bound.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "aligned.hpp"
#include "ops/query_block.hpp"

namespace recfuse {

/// Per modality: items are divided by these, queries multiplied.
std::vector<double> typical_norms(const FusedItems& items);

/// The items of a batch in int16, those that any query asks for.
class PairItems {
 public:
  explicit PairItems(const FusedItems& items);

  /// Names `width` ids, from `first` on, for what follows.
  void choose(std::int32_t first, std::int32_t width);
  /// Rounds those of these pairs that are not rounded yet.
  void round(std::span<const Queries::Pair> pairs);

  const FusedItems& items() const { return items_; }
  double unit(std::int32_t id) const { return units_[slot(id)]; }
  const double* norms(std::int32_t id) const { return &norms_[slot(id) * typical_norms_.size()]; }
  const std::int16_t* row(std::int32_t id) const { return &rows_[slot(id) * static_cast<std::size_t>(stride_)]; }

 private:
  enum State : char { kUnused, kWanted, kRounded };

  std::size_t slot(std::int32_t id) const { return static_cast<std::size_t>(id - first_); }
  void round_row(std::int32_t id, std::int16_t* out) const;

  const FusedItems& items_;
  std::int64_t stride_;  // of rows
  std::vector<double> typical_norms_;
  std::int32_t first_ = 0;
  AlignedVector<std::int16_t> rows_;
  std::vector<double> units_;
  std::vector<double> norms_;  // (items, modalities), in typical ones
  std::vector<State> states_;
};

/// Rows of all modalities behind one another, v = unit * integers + what is lost, with one unit for a query and one for
/// an item. Norms of at most kMaxNorm units keep every sum of products within 32 bits.
///   |<v, y> - sum| <= |lost_v| |y| + |v| |lost_y|
/// modality by modality, as in RoundedScreen. What a query loses is measured; items, which are rounded in float32 for
/// a few pairs and forgotten, lose at most half a unit per element.
class PairScreen {
 public:
  /// What is known of a score: it is within bound of value.
  struct Interval {
    float value;
    float bound;
  };

  /// For queries [first, last). Keeps views.
  PairScreen(const Queries& queries, std::int64_t first, std::int64_t last);

  /// Whether the fusion, the instruction set and the sums admit it.
  static bool fits(const Queries& queries);

  /// The bound that a pair of a query and one of these items would have.
  double bound(const Queries::Pair& pair, const PairItems& items) const;
  /// The interval of every pair, whose bounds are given.
  void measure(std::span<const Queries::Pair> pairs, std::span<const double> bounds, PairItems& items,
               std::span<Interval> intervals) const;

 private:
  void round_query(std::int64_t q);
  std::size_t n_modalities() const { return typical_norms_.size(); }
  std::size_t query_slot(std::int64_t q) const { return static_cast<std::size_t>(q - first_) * n_modalities(); }
  const std::int16_t* query_row(std::int64_t q) const {
    return &query_rows_[static_cast<std::size_t>((q - first_) * stride_)];
  }

  const Queries& queries_;
  const FusedItems& items_;
  std::int64_t first_;
  std::int64_t stride_;  // of rows
  std::vector<double> typical_norms_;
  AlignedVector<std::int16_t> query_rows_;
  std::vector<double> query_units_;
  std::vector<double> per_norm_;  // (queries, modalities): bound per unit of an item's norm
  std::vector<double> per_unit_;  // (queries): bound per unit of an item
};

}  // namespace recfuse
