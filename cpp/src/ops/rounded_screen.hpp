// The screen of rounded numbers, for linear fusions: int8 takes a quarter of the arithmetic and of the memory of
// float32, int16 a half.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "aligned.hpp"
#include "kernels/table.hpp"
#include "ops/candidates.hpp"
#include "ops/near_queries.hpp"
#include "ops/query_block.hpp"
#include "ops/refused_items.hpp"
#include "ops/rounded_items.hpp"

namespace recfuse {

/// A weighted query v is rounded for every class of items: v = (unit / item unit) * integers + what is lost, with a
/// unit per modality. Then, with items y = kept + lost,
///   |<v, y> - sum_m unit * <integers, integers>| <= sum_m |lost_v| |kept_y| + |v| |lost_y|
/// by Cauchy-Schwarz. Units are whole multiples of one another, so that all products share a sum, which is exact. Norms
/// are measured in float64 and rounded up, not estimated.
class RoundedScreen {
 public:
  /// Queries [first, last) of a block, rounded for every class.
  struct Packed {
    std::int64_t first = 0, last = 0;
    std::vector<AlignedVector<std::int32_t>> panels;     // per class: panels of 14, and a lower one for the rest
    std::vector<std::vector<std::int32_t>> multipliers;  // per class: (panels, segments but the first, queries)
    std::vector<double> units;                           // (queries, classes): of the sums
    std::vector<std::int32_t> offsets;                   // (queries, classes): what was added to the items' bytes adds
    std::vector<double> lost_norms;                      // (queries, classes, modalities)
    std::vector<double> constants;                       // (queries, groups): the product with the centres
    std::vector<double> reaches;                         // (queries, groups, modalities): see reach()
  };

  struct Prepared {
    RoundedItems::Scratch room;
    RoundedItems::RoundedTile tile;
  };

  /// Of up to a panel of queries, whose first neighbourhood is one: a list each of its items that may be the best.
  struct NearScratch {
    std::vector<float> known;  // of all queries of the block
    std::vector<std::int32_t> rows;
    std::vector<float> reached;
    std::vector<float> values, bounds;
    std::vector<std::int32_t> ids, counts, keys;
    std::vector<RoundedItems::Panel> panels;
    RoundedItems::Scratch room;
  };

  struct Scratch {
    // Of the queries that look at the tile at hand: their rows in the block, and how many of its panels they look at.
    std::vector<std::int32_t> rows, ends;
    std::vector<std::int32_t> starts, sorted_rows, sorted_ends;  // to sort them
    std::vector<std::int32_t> words, multipliers;                // where they are not those of the block
    // kernels::RoundedQueries says what these are.
    std::vector<std::int32_t> thresholds, offsets;
    std::vector<float> slopes, intercepts, bounds;
    std::vector<double> widths;  // the bounds before their rounding
    RefusedItems refused;
    // Of the items of a tile that a single query may get.
    AlignedVector<std::int32_t> query;
    std::vector<std::uint32_t> places;
    std::vector<std::int32_t> sums;
    NearScratch near;
  };

  /// Units of a query, per segment: each is a multiple of the next one.
  struct QueryUnits {
    std::vector<double> units;
    std::vector<std::int32_t> multiples;  // of the next one; the last is 1
  };

  /// Keeps views of all. `nearest`: of every query that it is asked for, or empty.
  RoundedScreen(const Queries& queries, const RoundedItems& items, const Filters& filters,
                std::span<const Nearest> nearest = {});

  /// What the screen does not look at itself.
  Filters left_to_candidates() const { return {.exclude = {}, .allow = filters_.allow, .allowed = nullptr}; }

  const ScanOrder& order() const { return items_.order(); }
  int panel_queries() const;
  std::int64_t candidates(std::int64_t k) const;
  /// As many as stay in a third cache; fewer where the later ones may not be needed.
  std::int64_t chunk_tiles() const { return items_.ordered_by_norm() && !items_.kept() ? 4 : 32; }
  /// Whether a sample of the tiles, which must be small, is worth a guess at the thresholds: they decide most where
  /// bounds are wide. Where the longest items come first they are high anyway.
  bool guesses() const;
  Packed pack(std::int64_t first, std::int64_t last) const;
  std::span<const float> known_thresholds(const Packed& packed, Scratch& scratch) const;
  bool reaches(std::size_t tile, const Packed& packed, Candidates& candidates) const;
  void prepare(std::size_t tile, Prepared& prepared) const { prepared.tile = items_.tile(tile, prepared.room); }
  void scan(std::size_t tile, const Prepared& prepared, const Packed& packed, Scratch& scratch,
            Candidates& candidates) const;

 private:
  void choose_units(std::int64_t q, int klass, QueryUnits& units) const;
  void round_query(std::int64_t q, int klass, QueryUnits& units, Packed& packed) const;
  std::int32_t offset_of(const RoundedRow& rounded, const QueryUnits& units) const;
  std::int32_t chunk_start(std::span<const std::int32_t> words) const;
  double constant(std::int64_t q, int group, const Packed& packed) const {
    return packed.constants[static_cast<std::size_t>(q - packed.first) * items_.items().groups().size() +
                            static_cast<std::size_t>(group)];
  }
  struct QueryWords {
    const std::int32_t *words, *multipliers;
  };
  static int max_height();
  static int panel_height(std::int64_t n_queries);
  void measure_reach(Packed& packed) const;
  double reach(std::size_t row, int group, const float* norms, const Packed& packed) const;
  bool looks_at(std::size_t row, std::size_t tile, const Packed& packed, Candidates& candidates) const;
  std::int32_t panels_in_reach(std::size_t row, std::size_t tile, std::int32_t n_panels, const Packed& packed,
                               float threshold) const;
  void choose_queries(std::size_t tile, const Packed& packed, Scratch& scratch, Candidates& candidates) const;
  QueryWords gather(std::size_t tile, const Packed& packed, Scratch& scratch) const;
  std::size_t class_slot(std::int64_t q, std::size_t tile, const Packed& packed) const;
  double bound(std::int64_t q, std::size_t tile, const RoundedItems::RoundedTile& rounded, const Packed& packed) const;
  std::int32_t threshold(std::int64_t q, std::size_t tile, const Packed& packed, double bound, float score) const;
  void mark_disallowed();
  void scan_rows(std::size_t tile, const Packed& packed, const std::int32_t* query, const std::uint32_t* refused,
                 Scratch& scratch, Candidates& candidates) const;
  void look_near(std::span<const RoundedItems::Panel> panels, std::size_t begin, std::size_t end, const Packed& packed,
                 Scratch& scratch) const;
  void scan_near(std::span<const RoundedItems::Panel> panels, std::size_t begin, std::size_t end, const Packed& packed,
                 Scratch& scratch) const;
  float score_near(std::int64_t q, std::size_t list, const NearScratch& near) const;
  void describe_queries(std::size_t tile, const RoundedItems::RoundedTile& rounded, const Packed& packed,
                        Scratch& scratch) const;
  void prepare_queries(std::size_t tile, const RoundedItems::RoundedTile& rounded, const Packed& packed,
                       Scratch& scratch, const Candidates& candidates) const;

  const Queries& queries_;
  const RoundedItems& items_;
  const Filters& filters_;
  const kernels::KernelTable& kernels_;
  decltype(kernels::KernelTable::screen_int8) screen_;
  const std::int32_t* rows_ = nullptr;  // read where a single query may get few items; null elsewhere
  std::span<const Nearest> nearest_;
  std::vector<std::uint32_t> disallowed_;  // a bit for every slot of a panel; empty without a list for all queries
};

}  // namespace recfuse
