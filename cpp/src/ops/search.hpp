// What every screen needs around it: which worker scans which tiles, and what becomes of the candidates.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
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

/// A tile, and, where it is the last one of a sample, the share of all items that have been looked at then.
struct TileVisit {
  std::size_t tile;
  double sampled;  // otherwise 0
};

/// All tiles, in their order. To guess thresholds: some that are spread over all, then twice as many, and so on.
std::vector<TileVisit> visit_tiles(std::span<const Tile> tiles, bool guess);

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
  /// Of a constant query, whose regular items differ by their ids alone: the k first.
  void score_first(std::int64_t q, ExactTopk& best) const;

  const Queries& queries_;
  const ScanOrder& order_;
  const Filters& filters_;
};

/// One call of topk. A Screen has, for the queries and items that it was made for:
///   order()                                         what it scans, as a ScanOrder
///   panel_queries()                                 how many queries it looks at together
///   candidates(k)                                   how many candidates of a query are worth keeping before it looks
///   chunk_tiles()                                   how many tiles are prepared together, to stay in cache
///   guesses()                                       whether thresholds guessed from a sample of the tiles may pay
///   Packed pack(first, last)                        queries as its kernels want them
///   known_thresholds(packed, scratch)               what k scores of each query reach, as far as that is known
///                                                   beforehand; empty where it never is
///   reaches(tile, packed, candidates)               whether any of these queries may find something in a tile
///   prepare(tile, prepared)                         a tile as its kernels want it, in a Prepared
///   left_to_candidates()                            the filters that scan() does not look at
///   scan(tile, prepared, packed, scratch, candidates)   pushes what may be among the k best; a worker has a Scratch
template <class Screen>
class Search {
 public:
  /// Keeps views of all three. `guess`: where a screen thinks that guesses pay.
  Search(const Screen& screen, const Queries& queries, const Filters& filters, bool guess = false)
      : screen_(screen),
        queries_(queries),
        filters_(screen.left_to_candidates()),
        exact_(queries, screen.order(), filters),
        guess_(guess && screen.guesses()) {}

  /// Answers queries [first, last).
  void run(std::int64_t first, std::int64_t last, const TopkOut& out, const MatrixView<double>& parts);

  /// How many items were scored canonically so far.
  std::int64_t n_scored() const { return n_scored_; }
  /// How many queries had to look at all items again, for their guess was too high.
  std::int64_t n_retried() const { return n_retried_; }

 private:
  using Scratch = typename Screen::Scratch;
  using Prepared = typename Screen::Prepared;
  using AllCandidates = std::vector<std::unique_ptr<Candidates>>;

  /// Blocks of queries that go through the items together, and the tiles that they look at together.
  struct Blocks {
    std::vector<TileVisit> visits;
    std::vector<Prepared> prepared;
    std::vector<Scratch> scratch;  // per worker
    AllCandidates candidates;
    std::vector<typename Screen::Packed> packed;
    std::vector<std::size_t> at_work;
  };

  void divide_queries(const SearchCut& cut, const TopkOut& out, const MatrixView<double>& parts);
  void divide_items(const SearchCut& cut, const TopkOut& out, const MatrixView<double>& parts);
  void scan_all(Blocks& blocks, bool first_time, bool guess, const TopkOut& out, const MatrixView<double>& parts) const;
  void narrow(Blocks& blocks) const;
  void scan_tile(std::size_t tile, const Prepared& prepared, const typename Screen::Packed& packed, Scratch& scratch,
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
  bool guess_;
  int num_threads_ = 0;
  std::int64_t n_scored_ = 0, n_retried_ = 0;
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
void Search<Screen>::scan_tile(std::size_t tile, const Prepared& prepared, const typename Screen::Packed& packed,
                               Scratch& scratch, Candidates& candidates) const {
  screen_.scan(tile, prepared, packed, scratch, candidates);
  if (candidates.crowded()) candidates.compact_all();
}

/// Blocks of queries go through the items together; then once more, those whose guesses were too high.
template <class Screen>
void Search<Screen>::divide_queries(const SearchCut& cut, const TopkOut& out, const MatrixView<double>& parts) {
  const auto at_once = static_cast<std::size_t>(cut.blocks_at_once);
  Blocks blocks{
      .visits = visit_tiles(screen_.order().tiles, guess_),
      .prepared = std::vector<Prepared>(
          static_cast<std::size_t>(std::clamp<std::int64_t>(n_tiles(), 1, screen_.chunk_tiles()))),
      .scratch = std::vector<Scratch>(static_cast<std::size_t>(plan_workers(cut.blocks_at_once, num_threads_))),
      .candidates = AllCandidates(at_once),
      .packed = std::vector<typename Screen::Packed>(at_once),
      .at_work = {}};
  for (std::int64_t begin = 0; begin < cut.n_blocks; begin += cut.blocks_at_once) {
    blocks.at_work.resize(static_cast<std::size_t>(std::min(cut.blocks_at_once, cut.n_blocks - begin)));
    std::iota(blocks.at_work.begin(), blocks.at_work.end(), std::size_t{0});
    parallel_for(static_cast<std::int64_t>(blocks.at_work.size()), num_threads_, [&](std::int64_t b, int worker) {
      const auto at = static_cast<std::size_t>(b);
      const std::int64_t first = cut.blocks[static_cast<std::size_t>(begin + b)];
      const std::int64_t last = cut.blocks[static_cast<std::size_t>(begin + b + 1)];
      if (!blocks.candidates[at]) blocks.candidates[at] = make_candidates(cut.blocks[1] - cut.blocks[0], nullptr);
      blocks.candidates[at]->start(first, last);
      blocks.packed[at] = screen_.pack(first, last);
      Scratch& scratch = blocks.scratch[static_cast<std::size_t>(worker)];
      blocks.candidates[at]->know(screen_.known_thresholds(blocks.packed[at], scratch));
    });
    scan_all(blocks, begin == 0, guess_, out, parts);
    if (!guess_) continue;
    std::erase_if(blocks.at_work, [&](std::size_t b) {
      const std::int64_t n = blocks.candidates[b]->retry();
      n_retried_ += n;
      return n == 0;
    });
    if (!blocks.at_work.empty()) scan_all(blocks, false, false, out, parts);
  }
  for (const auto& c : blocks.candidates) n_scored_ += c ? c->n_scored() : 0;
}

/// Tiles are prepared chunk by chunk; then every block of queries looks at them while they are in a cache.
template <class Screen>
void Search<Screen>::scan_all(Blocks& blocks, bool first_time, bool guess, const TopkOut& out,
                              const MatrixView<double>& parts) const {
  const auto chunk = static_cast<std::int64_t>(blocks.prepared.size());
  for (std::int64_t begin = 0; begin == 0 || begin < n_tiles(); begin += chunk) {  // once even where nothing is scanned
    const std::int64_t end = std::min(n_tiles(), begin + chunk);
    const std::span<const TileVisit> visits(blocks.visits.data() + begin, static_cast<std::size_t>(end - begin));
    if (first_time || chunk < n_tiles()) {  // a single chunk is prepared once
      // What nobody looks at now, nobody will: thresholds rise.
      const auto looked_at = [&](std::size_t tile) {
        return begin == 0 || std::any_of(blocks.at_work.begin(), blocks.at_work.end(), [&](std::size_t b) {
                 return screen_.reaches(tile, blocks.packed[b], *blocks.candidates[b]);
               });
      };
      parallel_for(end - begin, num_threads_, [&](std::int64_t i, int) {
        const std::size_t tile = visits[static_cast<std::size_t>(i)].tile;
        if (looked_at(tile)) screen_.prepare(tile, blocks.prepared[static_cast<std::size_t>(i)]);
      });
    }
    parallel_for(static_cast<std::int64_t>(blocks.at_work.size()), num_threads_, [&](std::int64_t i, int worker) {
      const std::size_t at = blocks.at_work[static_cast<std::size_t>(i)];
      Candidates& candidates = *blocks.candidates[at];
      for (std::size_t v = 0; v < visits.size(); ++v) {
        scan_tile(visits[v].tile, blocks.prepared[v], blocks.packed[at],
                  blocks.scratch[static_cast<std::size_t>(worker)], candidates);
        if (guess && visits[v].sampled > 0) candidates.guess(visits[v].sampled);
      }
      if (end == n_tiles()) candidates.find_open();
    });
  }
  narrow(blocks);
  parallel_for(static_cast<std::int64_t>(blocks.at_work.size()), num_threads_, [&](std::int64_t i, int) {
    const auto& candidates = blocks.candidates[blocks.at_work[static_cast<std::size_t>(i)]];
    candidates->end_settling();
    for (std::int64_t q = candidates->first(); q < candidates->last(); ++q) {
      if (candidates->settled(q)) finish(q, std::span(&candidates, 1), out, parts);
    }
  });
}

/// What int8 leaves open: batch by batch of items, which are rounded once for all blocks.
template <class Screen>
void Search<Screen>::narrow(Blocks& blocks) const {
  std::vector<Candidates*> open;
  for (const std::size_t b : blocks.at_work) {
    if (blocks.candidates[b]->narrows()) open.push_back(blocks.candidates[b].get());
  }
  if (open.empty()) return;
  const auto n_batches = static_cast<std::int64_t>(open[0]->n_batches());
  std::vector<std::unique_ptr<Candidates::Settling>> settling(
      static_cast<std::size_t>(plan_workers(n_batches, num_threads_)));
  parallel_for(n_batches, num_threads_, [&](std::int64_t batch, int worker) {
    auto& mine = settling[static_cast<std::size_t>(worker)];
    if (!mine) mine = std::make_unique<Candidates::Settling>(queries_.items());
    mine->choose(static_cast<std::size_t>(batch));
    for (Candidates* const candidates : open) candidates->settle_batch(static_cast<std::size_t>(batch), *mine);
  });
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
    const auto known = screen_.known_thresholds(packed, scratch[0]);
    for (std::size_t row = 0; row < known.size(); ++row) shared.raise(row, known[row]);
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
      scan_tile(static_cast<std::size_t>(tile), prepared[w], packed, scratch[w], *candidates[w]);
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
