// What every screen needs around it: which worker scans which tiles, and what becomes of the candidates.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "ops/candidates.hpp"
#include "ops/exact_topk.hpp"
#include "ops/query_block.hpp"
#include "parallel_for.hpp"

namespace recfuse {

/// How a search is cut. Any cut gives the same answer: a total order defines it, not the schedule.
struct SearchCut {
  bool by_queries;                   // workers divide the queries; otherwise, where those are few, the items
  std::int64_t n_blocks;             // of queries: each keeps its candidates together
  std::int64_t blocks_at_once;       // that go through the items together
  std::vector<std::int64_t> blocks;  // block b is [blocks[b], blocks[b + 1])
};

SearchCut cut_search(std::int64_t first, std::int64_t last, int num_threads, int panel_queries, std::int64_t room,
                     bool one_chunk);

/// Scores without a screen: of queries that are not scanned, and of items that none can judge.
class ExactScores {
 public:
  ExactScores(const Queries& queries, const ScanOrder& order, const Filters& filters)
      : queries_(queries), order_(order), filters_(filters) {}

  /// Every admissible item of a query.
  void score_all(std::int64_t q, ExactTopk& best) const;
  void score_irregular(std::int64_t q, ExactTopk& best) const;
  /// The list, and the terms of its scores where `parts` is given.
  void write(std::int64_t q, ExactTopk& best, const TopkOut& out, const MatrixView<double>& parts) const;

 private:
  void consider(std::int64_t q, std::int32_t id, ExactTopk& best) const;

  const Queries& queries_;
  const ScanOrder& order_;
  const Filters& filters_;
};

/// One call of topk. A Screen has, for the queries and items that it was made for:
///   order()                                         what it scans, as a ScanOrder
///   panel_queries()                                 how many queries it looks at together
///   candidates(k)                                   how many candidates of a query are worth keeping before it looks
///   chunk_tiles()                                   how many tiles are prepared together, to stay in cache
///   Packed pack(first, last)                        queries as its kernels want them
///   reaches(tile, packed, candidates)               whether any of these queries may find something in a tile
///   prepare(tile, prepared)                         a tile as its kernels want it, in a Prepared
///   left_to_candidates()                            the filters that scan() does not look at
///   scan(tile, prepared, packed, scratch, candidates)   pushes what may be among the k best; a worker has a Scratch
template <class Screen>
class Search {
 public:
  /// Keeps views of all three.
  Search(const Screen& screen, const Queries& queries, const Filters& filters)
      : screen_(screen),
        queries_(queries),
        filters_(screen.left_to_candidates()),
        exact_(queries, screen.order(), filters) {}

  /// Answers queries [first, last).
  void run(std::int64_t first, std::int64_t last, const TopkOut& out, const MatrixView<double>& parts);

  /// How many items were scored canonically so far.
  std::int64_t n_scored() const { return n_scored_; }

 private:
  using Scratch = typename Screen::Scratch;
  using Prepared = typename Screen::Prepared;
  using AllCandidates = std::vector<std::unique_ptr<Candidates>>;

  void divide_queries(const SearchCut& cut, const TopkOut& out, const MatrixView<double>& parts);
  void divide_items(const SearchCut& cut, const TopkOut& out, const MatrixView<double>& parts);
  void scan_tile(std::int64_t tile, const Prepared& prepared, const typename Screen::Packed& packed, Scratch& scratch,
                 Candidates& candidates) const;
  void finish(std::int64_t q, std::span<const std::unique_ptr<Candidates>> found, const TopkOut& out,
              const MatrixView<double>& parts) const;
  std::unique_ptr<Candidates> make_candidates(std::int64_t n_queries, SharedThresholds* shared) const {
    return std::make_unique<Candidates>(queries_, filters_, n_queries, room(), shared);
  }
  std::int64_t room() const { return screen_.candidates(std::min(queries_.args().k, queries_.items().n_items())); }
  std::int64_t n_tiles() const { return static_cast<std::int64_t>(screen_.order().tiles.size()); }

  const Screen& screen_;
  const Queries& queries_;
  Filters filters_;  // of the candidates
  ExactScores exact_;
  int num_threads_ = 0;
  std::int64_t n_scored_ = 0;
};

template <class Screen>
void Search<Screen>::run(std::int64_t first, std::int64_t last, const TopkOut& out, const MatrixView<double>& parts) {
  // Waking a thread takes as long as so many products, or as fetching rows that lie apart for some of them.
  constexpr std::int64_t kLeastProducts = 4 << 20, kProductsPerFetched = 8;
  const ScanOrder& order = screen_.order();
  const std::int64_t cost = (last - first) * (order.scattered ? kProductsPerFetched : 1);
  const bool little =
      cost * static_cast<std::int64_t>(order.ids.size()) * queries_.items().total_dim() < kLeastProducts;
  num_threads_ = little ? 1 : queries_.args().num_threads;
  const SearchCut cut =
      cut_search(first, last, num_threads_, screen_.panel_queries(), room(), n_tiles() <= screen_.chunk_tiles());
  if (cut.by_queries) {
    divide_queries(cut, out, parts);
  } else {
    divide_items(cut, out, parts);
  }
}

template <class Screen>
void Search<Screen>::scan_tile(std::int64_t tile, const Prepared& prepared, const typename Screen::Packed& packed,
                               Scratch& scratch, Candidates& candidates) const {
  screen_.scan(static_cast<std::size_t>(tile), prepared, packed, scratch, candidates);
  if (candidates.crowded()) candidates.compact_all();
}

/// Tiles are prepared chunk by chunk; then every block of queries looks at them while they are in a cache.
template <class Screen>
void Search<Screen>::divide_queries(const SearchCut& cut, const TopkOut& out, const MatrixView<double>& parts) {
  const std::int64_t chunk = std::clamp<std::int64_t>(n_tiles(), 1, screen_.chunk_tiles());
  std::vector<Prepared> prepared(static_cast<std::size_t>(chunk));
  std::vector<Scratch> scratch(static_cast<std::size_t>(plan_workers(cut.blocks_at_once, num_threads_)));
  AllCandidates candidates(static_cast<std::size_t>(cut.blocks_at_once));
  std::vector<typename Screen::Packed> packed(candidates.size());
  for (std::int64_t begin = 0; begin < cut.n_blocks; begin += cut.blocks_at_once) {
    const std::int64_t n_blocks = std::min(cut.blocks_at_once, cut.n_blocks - begin);
    for (std::int64_t tile = 0; tile == 0 || tile < n_tiles(); tile += chunk) {  // once even where nothing is scanned
      const std::int64_t end = std::min(n_tiles(), tile + chunk);
      if (begin == 0 || chunk < n_tiles()) {  // a single chunk is prepared once
        // What nobody looks at now, nobody will: thresholds rise.
        const auto looked_at = [&](std::int64_t t) {
          if (tile == 0) return true;
          for (std::size_t b = 0; b < static_cast<std::size_t>(n_blocks); ++b) {
            if (screen_.reaches(static_cast<std::size_t>(t), packed[b], *candidates[b])) return true;
          }
          return false;
        };
        parallel_for(end - tile, num_threads_, [&](std::int64_t i, int) {
          if (!looked_at(tile + i)) return;
          screen_.prepare(static_cast<std::size_t>(tile + i), prepared[static_cast<std::size_t>(i)]);
        });
      }
      parallel_for(n_blocks, num_threads_, [&](std::int64_t b, int worker) {
        const auto at = static_cast<std::size_t>(b), w = static_cast<std::size_t>(worker);
        const std::int64_t first = cut.blocks[static_cast<std::size_t>(begin + b)];
        const std::int64_t last = cut.blocks[static_cast<std::size_t>(begin + b + 1)];
        if (tile == 0) {
          if (!candidates[at]) candidates[at] = make_candidates(cut.blocks[1] - cut.blocks[0], nullptr);
          candidates[at]->start(first, last);
          packed[at] = screen_.pack(first, last);
        }
        for (std::int64_t t = tile; t < end; ++t) {
          scan_tile(t, prepared[static_cast<std::size_t>(t - tile)], packed[at], scratch[w], *candidates[at]);
        }
        if (end < n_tiles()) return;
        candidates[at]->settle();
        for (std::int64_t q = first; q < last; ++q) finish(q, std::span(&candidates[at], 1), out, parts);
      });
    }
  }
  for (const auto& c : candidates) n_scored_ += c ? c->n_scored() : 0;
}

template <class Screen>
void Search<Screen>::divide_items(const SearchCut& cut, const TopkOut& out, const MatrixView<double>& parts) {
  const std::int64_t block = cut.blocks[1] - cut.blocks[0];
  const auto n_workers = static_cast<std::size_t>(plan_workers(n_tiles(), num_threads_));
  SharedThresholds shared(block);
  AllCandidates candidates(n_workers);
  std::vector<Scratch> scratch(n_workers);
  std::vector<Prepared> prepared(n_workers);
  const auto for_each_worker = [&](auto work) {
    parallel_for(static_cast<std::int64_t>(n_workers), num_threads_, [&](std::int64_t i, int) {
      if (candidates[static_cast<std::size_t>(i)]) work(*candidates[static_cast<std::size_t>(i)]);
    });
  };
  for (std::size_t b = 0; b + 1 < cut.blocks.size(); ++b) {
    const std::int64_t first = cut.blocks[b], last = cut.blocks[b + 1];
    const auto packed = screen_.pack(first, last);
    shared.clear();
    for (const auto& c : candidates) {
      if (c) c->start(first, last);
    }
    parallel_for(n_tiles(), num_threads_, [&](std::int64_t tile, int worker) {
      const auto w = static_cast<std::size_t>(worker);
      if (!candidates[w]) {
        candidates[w] = make_candidates(block, &shared);
        candidates[w]->start(first, last);
      }
      if (!screen_.reaches(static_cast<std::size_t>(tile), packed, *candidates[w])) return;
      screen_.prepare(static_cast<std::size_t>(tile), prepared[w]);
      scan_tile(tile, prepared[w], packed, scratch[w], *candidates[w]);
    });
    // All tell one another their thresholds before they score what is left.
    for_each_worker([](Candidates& c) { c.score_best(); });
    for_each_worker([](Candidates& c) { c.settle(); });
    parallel_for(last - first, num_threads_, [&](std::int64_t q, int) { finish(first + q, candidates, out, parts); });
  }
  for (const auto& c : candidates) n_scored_ += c ? c->n_scored() : 0;
}

template <class Screen>
void Search<Screen>::finish(std::int64_t q, std::span<const std::unique_ptr<Candidates>> found, const TopkOut& out,
                            const MatrixView<double>& parts) const {
  ExactTopk best(queries_.args().k);
  if (!queries_.scanned(q)) {
    exact_.score_all(q, best);
  } else {
    for (const auto& candidates : found) {
      if (candidates) candidates->take(q, best);
    }
    exact_.score_irregular(q, best);
  }
  exact_.write(q, best, out, parts);
}

}  // namespace recfuse
