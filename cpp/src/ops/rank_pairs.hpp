// Ranks of given pairs among all items: what is better than each is counted, and nothing is stored.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/query_block.hpp"

namespace recfuse {

/// One call of rank_pairs. The float32 screen tells on which side of the score of a pair an item is; where its bound
/// does not, the canonical score does.
class PairRanking {
 public:
  /// Keeps views of all.
  PairRanking(const Queries& queries, const ScanOrder& order, const CsrView& pairs, const PairRanks& out);

  void run();

 private:
  /// Items of a tile, packed.
  using Panels = std::vector<float>;

  /// Of the queries of a panel and a tile: per pair, from which screened value on an item is better, and from which on
  /// it may be.
  struct Marks {
    std::vector<float> above, below;
  };
  /// An item that the screen leaves open for some pairs of a query.
  struct Open {
    Queries::Pair pair;
    float value;
  };
  struct Scratch {
    std::vector<float> packed, scores;
    Marks marks;
    std::vector<Open> open;
  };
  /// Some queries that are multiplied together.
  struct QueryPanel {
    std::int64_t first, last;
  };

  void start(std::int64_t q);
  void prepare(const Tile& tile, Panels& panels) const;
  void scan(std::int64_t first, std::int64_t last, std::size_t first_tile, const std::vector<Panels>& prepared,
            std::size_t n_tiles, Scratch& scratch) const;
  void scan_tile(const QueryPanel& panel, const float* packed, std::size_t tile, const Panels& panels,
                 Scratch& scratch) const;
  void mark(std::int64_t q, std::size_t tile, std::int64_t base, Marks& marks) const;
  void screen(const QueryPanel& panel, const float* packed, int group, const float* items, Scratch& scratch) const;
  void settle(std::int64_t base, Scratch& scratch) const;
  void count_pair(std::int64_t p, std::int32_t own, std::int32_t id, float score, int times) const;
  /// Counts an item `times` times for every pair of its query.
  void count(std::int64_t q, std::int32_t id, int times) const;
  void finish(std::int64_t q) const;

  std::int64_t begin(std::int64_t q) const { return pairs_.indptr[q] - pairs_.indptr[0]; }
  bool scanned(std::int64_t q) const { return pairs_.row_size(q) > 0 && queries_.scanned(q); }
  const FusedItems& items() const { return queries_.items(); }

  const Queries& queries_;
  const ScanOrder& order_;
  const CsrView& pairs_;
  const PairRanks& out_;  // counts, until a query is finished: ties with smaller ids, better scores, ties
  const kernels::KernelTable& kernels_;
  std::vector<float> scores_;  // of the pairs
};

}  // namespace recfuse
