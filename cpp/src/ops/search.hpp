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
  std::int64_t block;       // queries that are scanned together
  bool workers_own_blocks;  // otherwise they share one and divide the items
};

SearchCut cut_search(std::int64_t n_queries, int num_threads, std::int64_t n_tiles, int panel_queries,
                     std::int64_t room);

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
///   order()                                     what it scans, as a ScanOrder
///   panel_queries()                             how many queries it looks at together
///   candidates(k)                               how many candidates of a query are worth keeping before it looks
///   Packed pack(first, last)                    queries as its kernels want them
///   scan(tile, packed, scratch, candidates)     pushes what may be among the k best; Scratch is a worker's own
template <class Screen>
class Search {
 public:
  /// Keeps views of all three.
  Search(const Screen& screen, const Queries& queries, const Filters& filters)
      : screen_(screen), queries_(queries), filters_(filters), exact_(queries, screen.order(), filters) {}

  /// Answers queries [first, last).
  void run(std::int64_t first, std::int64_t last, const TopkOut& out, const MatrixView<double>& parts);

  /// How many items were scored canonically so far.
  std::int64_t n_scored() const;

 private:
  struct Worker {
    Candidates candidates;
    typename Screen::Scratch scratch;
  };
  using Workers = std::vector<std::unique_ptr<Worker>>;

  void scan_own_blocks(std::int64_t begin, std::int64_t end, const SearchCut& cut, const TopkOut& out,
                       const MatrixView<double>& parts);
  void scan_shared_blocks(std::int64_t begin, std::int64_t end, const SearchCut& cut, const TopkOut& out,
                          const MatrixView<double>& parts);
  Worker& worker_for(int i, std::int64_t first, std::int64_t last, std::int64_t block);
  void finish(std::int64_t q, std::span<const std::unique_ptr<Worker>> workers, const TopkOut& out,
              const MatrixView<double>& parts) const;
  std::int64_t room() const { return screen_.candidates(std::min(queries_.args().k, queries_.items().n_items())); }
  std::int64_t n_tiles() const { return static_cast<std::int64_t>(screen_.order().tiles.size()); }

  const Screen& screen_;
  const Queries& queries_;
  const Filters& filters_;
  ExactScores exact_;
  Workers workers_;
  std::unique_ptr<SharedThresholds> shared_;  // where workers divide the items
};

template <class Screen>
void Search<Screen>::run(std::int64_t first, std::int64_t last, const TopkOut& out, const MatrixView<double>& parts) {
  const SearchCut cut =
      cut_search(last - first, queries_.args().num_threads, n_tiles(), screen_.panel_queries(), room());
  workers_.clear();  // their room is for one cut
  shared_ = cut.workers_own_blocks ? nullptr : std::make_unique<SharedThresholds>(cut.block);
  if (cut.workers_own_blocks) {
    scan_own_blocks(first, last, cut, out, parts);
  } else {
    scan_shared_blocks(first, last, cut, out, parts);
  }
}

template <class Screen>
std::int64_t Search<Screen>::n_scored() const {
  std::int64_t n = 0;
  for (const auto& worker : workers_) n += worker ? worker->candidates.n_scored() : 0;
  return n;
}

template <class Screen>
typename Search<Screen>::Worker& Search<Screen>::worker_for(int i, std::int64_t first, std::int64_t last,
                                                            std::int64_t block) {
  auto& worker = workers_[static_cast<std::size_t>(i)];
  if (!worker) {
    worker.reset(new Worker{Candidates(queries_, filters_, block, room(), shared_.get()), {}});
    worker->candidates.start(first, last);
  }
  return *worker;
}

template <class Screen>
void Search<Screen>::scan_own_blocks(std::int64_t begin, std::int64_t end, const SearchCut& cut, const TopkOut& out,
                                     const MatrixView<double>& parts) {
  const std::int64_t n_blocks = (end - begin + cut.block - 1) / cut.block;
  const int num_threads = queries_.args().num_threads;
  workers_.resize(static_cast<std::size_t>(plan_workers(n_blocks, num_threads)));
  parallel_for(n_blocks, num_threads, [&](std::int64_t b, int i) {
    const std::int64_t first = begin + b * cut.block, last = std::min(end, first + cut.block);
    Worker& worker = worker_for(i, first, last, cut.block);
    worker.candidates.start(first, last);
    const auto packed = screen_.pack(first, last);
    for (std::int64_t tile = 0; tile < n_tiles(); ++tile) {
      screen_.scan(static_cast<std::size_t>(tile), packed, worker.scratch, worker.candidates);
    }
    const std::span own(&workers_[static_cast<std::size_t>(i)], 1);
    for (std::int64_t q = first; q < last; ++q) finish(q, own, out, parts);
  });
}

template <class Screen>
void Search<Screen>::scan_shared_blocks(std::int64_t begin, std::int64_t end, const SearchCut& cut, const TopkOut& out,
                                        const MatrixView<double>& parts) {
  const int num_threads = queries_.args().num_threads;
  workers_.resize(static_cast<std::size_t>(plan_workers(std::max(n_tiles(), cut.block), num_threads)));
  for (std::int64_t first = begin; first < end; first += cut.block) {
    const std::int64_t last = std::min(end, first + cut.block);
    const auto packed = screen_.pack(first, last);
    shared_->clear();
    for (auto& worker : workers_) {
      if (worker) worker->candidates.start(first, last);
    }
    parallel_for(n_tiles(), num_threads, [&](std::int64_t tile, int i) {
      Worker& worker = worker_for(i, first, last, cut.block);
      screen_.scan(static_cast<std::size_t>(tile), packed, worker.scratch, worker.candidates);
    });
    parallel_for(last - first, num_threads, [&](std::int64_t q, int) { finish(first + q, workers_, out, parts); });
  }
}

template <class Screen>
void Search<Screen>::finish(std::int64_t q, std::span<const std::unique_ptr<Worker>> workers, const TopkOut& out,
                            const MatrixView<double>& parts) const {
  ExactTopk best(queries_.args().k);
  if (!queries_.scanned(q)) {
    exact_.score_all(q, best);
  } else {
    float threshold = -std::numeric_limits<float>::infinity();
    for (const auto& worker : workers) {
      if (worker) threshold = std::max(threshold, worker->candidates.threshold(q));
    }
    for (const auto& worker : workers) {
      if (!worker) continue;
      worker->candidates.raise_threshold(q, threshold);
      worker->candidates.rescore(q, best);
    }
    exact_.score_irregular(q, best);
  }
  exact_.write(q, best, out, parts);
}

}  // namespace recfuse
