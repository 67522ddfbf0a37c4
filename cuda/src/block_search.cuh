// The search of a block of items for a batch of queries: passes of the screen, and the exact end.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "batch.cuh"
#include "candidates.cuh"
#include "items.cuh"
#include "rank.cuh"
#include "screen_choice.cuh"
#include "screen_combined.cuh"

namespace recfuse::cuda {

/// Of one search, all batches and blocks together.
struct SearchCounts {
  std::int64_t candidates = 0;  // scored by float64 after the screen
  std::int64_t unscreened = 0;  // queries for which every item was, once per block of items
  std::int64_t gathered = 0;    // items that were made tiles of for the lists of a call
  std::int64_t listed = 0;      // pairs on lists that were scored without a screen
  std::int64_t recorded = 0;    // small requests whose launches were recorded
  std::int64_t replayed = 0;    // those that found a recording

  SearchCounts& operator+=(const SearchCounts& other) {
    candidates += other.candidates;
    unscreened += other.unscreened;
    gathered += other.gathered;
    listed += other.listed;
    recorded += other.recorded;
    replayed += other.replayed;
    return *this;
  }
};

/// Which queries have more candidates than there is room for, or are out of the screen's range.
inline std::vector<std::int32_t> queries_left(std::span<const std::int32_t> of_queries, int capacity,
                                              SearchCounts& counts) {
  std::vector<std::int32_t> left;
  for (std::size_t q = 0; q < of_queries.size(); ++q) {
    const bool answered = of_queries[q] <= capacity;
    counts.candidates += answered ? of_queries[q] : 0;
    if (!answered) left.push_back(static_cast<std::int32_t>(q));
  }
  counts.unscreened += static_cast<std::int64_t>(left.size());
  return left;
}

template <class Device>
class BlockSearch {
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  BlockSearch(Device& device, const Catalogue<Device>& catalogue, const SearchLimits& limits, const ItemPlan& plan,
              const ItemBlock<Device>& block, const PackedItems<Device>* packed)
      : device_(device), catalogue_(catalogue), limits_(limits), plan_(plan), block_(block), packed_(packed) {}

  /// Makes of `lists` those of this block; with `carried`, of this block and of what they hold.
  void search(Batch<Device>& batch, const Filters& filters, const Lists& lists, bool carried, double admitted,
              SearchCounts& counts) const {
    std::vector<std::int32_t> left;  // for which every item is scored
    if (screens(batch.rule.fusion, lists.k)) {
      left = screen_in_passes(batch, filters, lists, carried, admitted, counts);
    } else {
      prepare(batch);
      left.resize(static_cast<std::size_t>(batch.n));
      std::iota(left.begin(), left.end(), 0);
      counts.unscreened += batch.n;
    }
    score_all(batch, filters, left, lists, carried);
  }

  /// The same for lists of admitted items of at most `longest` entries: `ids` for all queries, or those of the filters.
  void search_listed(Batch<Device>& batch, const Filters& filters, const Lists& lists, const Array<std::int32_t>& ids,
                     std::int64_t longest) const {
    prepare(batch);
    device_.launch(
        RankListed{block_.items(), batch.view(), filters, ids.data(), static_cast<std::int64_t>(ids.size()), lists},
        batch.n, 1, RankListed::shared_bytes(longest));
  }

  /// Norms and factors of the queries: what any score needs.
  void prepare(Batch<Device>& batch) const { prepare(batch, nullptr, 1); }

  /// Of those pairs whose item is in this block; after prepare() or search().
  void score(const Batch<Device>& batch, const std::int64_t* rows, std::int64_t per_query, const std::int32_t* ids,
             std::int64_t n, float* scores, double* terms) const {
    if (n == 0) return;
    device_.launch(ScorePairs{block_.items(), batch.view(), rows, per_query, ids, n, scores, terms},
                   blocks_for(n, ScorePairs::kThreads), 1, 0);
  }

  /// Whether a score is the sum of the terms of its modalities; one term is.
  bool adds_terms(Fusion fusion) const { return is_linear(fusion) || catalogue_.n_modalities() == 1; }

  /// Whether the candidates of a query fit into the shared memory of a block, and a screen knows the fusion.
  bool screens(Fusion fusion, std::int64_t k) const {
    const auto capacity = static_cast<int>(candidates_per_query(limits_, k));
    const std::size_t needed =
        std::max(RaiseThresholds::shared_bytes(capacity), RankCandidates::shared_bytes(capacity, block_.n_irregular()));
    const bool known = adds_terms(fusion) || (catalogue_.n_modalities() <= kMostCombined &&
                                              ScreenTerms::kSharedBytes <= device_.most_shared_bytes());
    return block_.is_screened() && known && k <= SearchLimits::kMostK && needed <= device_.most_shared_bytes();
  }

  /// Passes over ranges of items that grow, each with the thresholds that the ones before have set.
  template <class Body>
  void launch_screen(Batch<Device>& batch, Screening<Device>& screening, const Filters& filters, const Lists& lists,
                     bool carried, double admitted) const {
    prepare(batch, &screening, Body::kQueries);
    if (carried) {
      device_.launch(CarryLists{lists, screening.candidates(), batch.n}, blocks_for(batch.n, CarryLists::kThreads), 1,
                     0);
    }
    const ScreenedQueries queries{
        screening.image.data(), screening.bounds.data(), screening.scales.data(), batch.factors.data(), batch.n,
        batch.rule.fusion,      batch.rule.missing,      batch.weights.data(),    batch.n_weights};
    const std::int64_t query_tiles = blocks_for(batch.n, Body::kQueries), n_tiles = packed_->n_tiles();
    std::int64_t scanned = 0;
    while (scanned < n_tiles) {
      const std::int64_t end =
          std::min(n_tiles, scanned == 0 ? first_tiles(lists.k, admitted) : scanned * limits_.growth);
      const std::int64_t wanted = std::max<std::int64_t>(1, kWaves * device_.multiprocessors() / query_tiles);
      const std::int64_t per_block = blocks_for(end - scanned, wanted);
      device_.launch(Body{Scan{packed_->tiles(), queries, screening.candidates(), filters}, scanned, end, per_block},
                     query_tiles, blocks_for(end - scanned, per_block), Body::kSharedBytes);
      device_.launch(RaiseThresholds{screening.candidates(), lists.k}, batch.n, 1,
                     RaiseThresholds::shared_bytes(screening.capacity));
      scanned = end;
    }
    device_.launch(RankCandidates{screening.candidates(), block_.items(), batch.view(), filters, block_.irregular(),
                                  block_.n_irregular(), lists},
                   batch.n, 1, RankCandidates::shared_bytes(screening.capacity, block_.n_irregular()));
  }

  /// The same for at most kFewQueries, in tiles of so many; of those that screens().
  int few_tile_queries(Fusion fusion) const { return adds_terms(fusion) ? ScreenFew::kQueries : ScreenTerms::kQueries; }
  void launch_few(Batch<Device>& batch, Screening<Device>& screening, const Filters& filters,
                  const Lists& lists) const {
    if (adds_terms(batch.rule.fusion)) {
      launch_screen<ScreenFew>(batch, screening, filters, lists, false, 1);
    } else {
      launch_screen<ScreenTerms>(batch, screening, filters, lists, false, 1);
    }
  }

  /// Of these queries every item is scored.
  void score_all(Batch<Device>& batch, const Filters& filters, const std::vector<std::int32_t>& left,
                 const Lists& lists, bool carried) const {
    const std::int64_t n_carried = carried ? lists.k : 0, size = power_of_two(block_.size() + n_carried);
    const auto at_once = static_cast<std::size_t>(scored_at_once(plan_, limits_, size));
    for (std::size_t begin = 0; begin < left.size(); begin += at_once) {
      const std::size_t n = std::min(left.size() - begin, at_once);
      const Array<std::int32_t> rows(device_, std::span(left).subspan(begin, n));
      Array<std::uint64_t> keys(device_, n * static_cast<std::size_t>(size));
      const auto n_rows = static_cast<std::int64_t>(n);
      const std::int64_t n_blocks = std::min(blocks_for(size, ScoreAll::kThreads), kMostBlocksY);
      device_.launch(ScoreAll{block_.items(),
                              batch.view(),
                              filters,
                              rows.data(),
                              size,
                              n_blocks,
                              keys.data(),
                              {n_carried, lists.ids, lists.scores}},
                     n_rows, n_blocks, 0);
      device_.launch(RankAll{rows.data(), size, keys.data(), lists}, n_rows, 1, 0);
    }
  }

 private:
  void prepare(Batch<Device>& batch, Screening<Device>* screening, int tile_queries) const {
    PrepareQueries body{batch.view(),
                        block_.items(),
                        block_.units(),
                        block_.largest_item(),
                        tile_queries,
                        catalogue_.n_slabs(),
                        batch.inverse_norms.data(),
                        batch.factors.data(),
                        nullptr,
                        nullptr,
                        nullptr,
                        {}};
    if (screening != nullptr) {
      body.bounds = screening->bounds.data();
      body.scales = screening->scales.data();
      body.image = screening->image.data();
      body.candidates = screening->candidates();
    }
    device_.launch(body, blocks_for(batch.n, PrepareQueries::kThreads), 1, 0);
  }

  std::vector<std::int32_t> screen_in_passes(Batch<Device>& batch, const Filters& filters, const Lists& lists,
                                             bool carried, double admitted, SearchCounts& counts) const {
    if (!adds_terms(batch.rule.fusion)) {
      return screen<ScreenTerms>(batch, filters, lists, carried, admitted, counts);
    }
    return with_screen(device_, batch.n <= SearchLimits::kFewQueries, [&](auto body) {
      return screen<typename decltype(body)::type>(batch, filters, lists, carried, admitted, counts);
    });
  }

  /// Returns the queries that could not be answered: out of the screen's range, or with more candidates than there is
  /// room for.
  template <class Body>
  std::vector<std::int32_t> screen(Batch<Device>& batch, const Filters& filters, const Lists& lists, bool carried,
                                   double admitted, SearchCounts& counts) const {
    Screening<Device> screening(device_, catalogue_, batch.n, candidates_per_query(limits_, lists.k), Body::kQueries);
    launch_screen<Body>(batch, screening, filters, lists, carried, admitted);
    return queries_left(screening.own_counts.all(), screening.capacity, counts);
  }

  /// As many as surely fit, or fewer; more where few of them are admitted.
  std::int64_t first_tiles(std::int64_t k, double admitted) const {
    const std::int64_t most = candidates_per_query(limits_, k);
    const auto items =
        static_cast<double>(std::min(most, std::max(limits_.first_items, 4 * std::min(k, catalogue_.n_items())))) /
        (2 * admitted);
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(items) / kTileItems, 1,
                                    std::max<std::int64_t>(packed_->n_tiles(), 1));
  }

  static std::int64_t blocks_for(std::int64_t n, std::int64_t per_block) { return (n + per_block - 1) / per_block; }

  static constexpr std::int64_t kMostBlocksY = 65'535;
  static constexpr std::int64_t kWaves = 4;  // of blocks: the last one is a quarter of the time, at most

  Device& device_;
  const Catalogue<Device>& catalogue_;
  const SearchLimits& limits_;
  const ItemPlan& plan_;
  const ItemBlock<Device>& block_;
  const PackedItems<Device>* packed_;  // null: pairs are scored, nothing is searched
};

}  // namespace recfuse::cuda
