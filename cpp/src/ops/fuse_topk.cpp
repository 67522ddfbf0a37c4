#include "recfuse/fuse_topk.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/candidates.hpp"
#include "parallel_for.hpp"
#include "recfuse/canonical.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kTileFloats = 1 << 18;   // 1 MiB of packed items: half an L2, or a piece of the L3
constexpr std::int64_t kQueryFloats = 1 << 17;  // packed queries that stay in L2 while panels of items pass by
constexpr std::int64_t kMaxQueriesPerBlock = 2048;
constexpr std::int64_t kTilesPerWorker = 8;            // with fewer, workers that divide the items wait for one another
constexpr std::int64_t kMaxCandidateBytes = 32 << 20;  // per worker
constexpr std::int64_t kFewQueries = 6;                // up to here, rows read once beat packed panels
// Canonical scoring of one item costs about as much as screening this many (docs/performance.md).
constexpr std::int64_t kExactCost = 8;

constexpr int kMaxPanelEntries = 14 * 32;

std::int64_t tile_items_for(std::int64_t total_dim) {
  // A multiple of 64, so that a tile is whole panels on every instruction set.
  return std::clamp<std::int64_t>(kTileFloats / total_dim / 64 * 64, 64, 512);
}

/// One call of topk: what it scans and how the work is cut.
class Search {
 public:
  Search(const FusedItems& items, const ScanOrder& order, const FuseTopkArgs& args)
      : items_(items),
        order_(order),
        args_(args),
        kernels_(kernel_table()),
        filters_{args.exclude, args.allow},
        queries_(items, args, order) {}

  void run(const TopkOut& out, const MatrixView<double>& parts);

 private:
  struct Worker {
    Candidates candidates;
    std::vector<float> items;       // one packed tile
    std::vector<float> queries;     // the packed block, where workers do not share one
    std::vector<float> thresholds;  // of the queries of the block, for the tile at hand
    std::vector<double> bounds;     // likewise: how far from the score a screened value may be
    std::vector<float> panel;       // scores of one panel per modality, for fusions that are not linear
  };

  /// Queries that are screened together: [first, last), at most kernels_.mr.
  struct QueryPanel {
    std::int64_t first, last;
    const float* packed;
    float* thresholds;
    const double* bounds;
  };

  void cut();
  std::unique_ptr<Worker> new_worker() const;
  void pack_queries(std::int64_t first, std::int64_t last, std::vector<float>& packed) const;
  double tile_bound(std::int64_t q, std::size_t tile) const;
  float tile_threshold(const Candidates& candidates, std::int64_t q, int group, double bound) const;
  void scan_tile(std::size_t tile, std::int64_t first, std::int64_t last, const float* queries, Worker& worker) const;
  void scan_panel(std::size_t tile, std::int64_t item, const float* items, const QueryPanel& queries,
                  Worker& worker) const;
  void scan_rows(std::size_t tile, std::int64_t first, std::int64_t last, Worker& worker) const;
  void keep(int group, std::int64_t q, float screened, double bound, std::int64_t item, float& threshold,
            Candidates& candidates) const;
  int screen(std::size_t tile, const float* items, const QueryPanel& queries, const kernels::PanelHits& hits,
             Worker& worker) const;
  bool scored_exactly(std::int64_t q) const;
  void score_all(std::int64_t q, ExactTopk& best) const;
  void finish(std::int64_t q, std::span<const std::unique_ptr<Worker>> workers, const TopkOut& out,
              const MatrixView<double>& parts) const;

  const FusedItems& items_;
  const ScanOrder& order_;
  const FuseTopkArgs& args_;
  const kernels::KernelTable& kernels_;
  Filters filters_;
  Queries queries_;
  std::int64_t block_ = 1;           // queries that are scanned together
  bool workers_own_blocks_ = false;  // otherwise they share one and divide the items
};

/// Either way the answer is the same, for it is defined by a total order and not by the schedule.
void Search::cut() {
  const std::int64_t n = std::max<std::int64_t>(queries_.size(), 1);
  const std::int64_t bytes = Candidates::capacity_for(args_.k, items_.n_items()) * 8;
  const std::int64_t most = std::clamp<std::int64_t>(kMaxCandidateBytes / bytes, 1, kMaxQueriesPerBlock);
  const std::int64_t workers = plan_workers(n, args_.num_threads);
  // Dividing the items interleaves them once for all workers, and evens out what one of them loses to other programs.
  workers_own_blocks_ =
      n >= workers * kernels_.mr && static_cast<std::int64_t>(order_.tiles.size()) < kTilesPerWorker * workers;
  const std::int64_t rounds = (n + most * workers - 1) / (most * workers);
  // Whole panels of queries, evenly over the workers.
  const std::int64_t even = (n + rounds * workers - 1) / (rounds * workers);
  block_ =
      workers_own_blocks_ ? std::min(most, (even + kernels_.mr - 1) / kernels_.mr * kernels_.mr) : std::min(most, n);
}

std::unique_ptr<Search::Worker> Search::new_worker() const {
  return std::make_unique<Worker>(Worker{Candidates(queries_, kernels_, block_), {}, {}, {}, {}, {}});
}

void Search::pack_queries(std::int64_t first, std::int64_t last, std::vector<float>& packed) const {
  const std::int64_t panel = kernels_.mr * items_.total_dim();
  packed.resize(static_cast<std::size_t>((last - first + kernels_.mr - 1) / kernels_.mr * panel));
  float* out = packed.data();
  for (std::int64_t q = first; q < last; q += kernels_.mr, out += panel) {
    queries_.pack(kernels_, q, std::min(last, q + kernels_.mr), out);
  }
}

/// Without a scan: queries out of range, short allow-lists, and queries of zeros, whose ties no screen can part.
bool Search::scored_exactly(std::int64_t q) const {
  return !queries_.screenable(q) || queries_.constant(q) ||
         (args_.allow.given() && args_.allow.row_size(q) * kExactCost < static_cast<std::int64_t>(order_.ids.size()));
}

double Search::tile_bound(std::int64_t q, std::size_t tile) const {
  const float* norms = &order_.tile_norms[tile * static_cast<std::size_t>(items_.n_modalities())];
  return queries_.bound(q, order_.tiles[tile].group, norms);
}

float Search::tile_threshold(const Candidates& candidates, std::int64_t q, int group, double bound) const {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const double factor = queries_.factor(q, group);
  if (factor == 0 || scored_exactly(q)) return kInfinity;
  double lowest = candidates.threshold(q) - bound;
  if (is_linear(args_.fusion)) lowest /= factor;
  // Two ulps down: one for the division, one for the conversion.
  const float rounded = static_cast<float>(lowest);
  return std::nextafter(std::nextafter(rounded, -kInfinity), -kInfinity);
}

void Search::keep(int group, std::int64_t q, float screened, double bound, std::int64_t item, float& threshold,
                  Candidates& candidates) const {
  float value = screened;
  if (is_linear(args_.fusion)) value *= static_cast<float>(queries_.factor(q, group));
  if (candidates.push(q, value, bound, order_.ids[static_cast<std::size_t>(item)])) {
    threshold = tile_threshold(candidates, q, group, bound);
  }
}

int Search::screen(std::size_t tile, const float* items, const QueryPanel& queries, const kernels::PanelHits& hits,
                   Worker& worker) const {
  if (is_linear(args_.fusion)) {
    return kernels_.screen_panel(queries.packed, items, items_.total_dim(), queries.thresholds, hits);
  }
  const std::int64_t entries = kernels_.mr * kernels_.nr;
  worker.panel.resize(static_cast<std::size_t>(entries * items_.n_modalities()));
  const float* packed = queries.packed;
  for (int m = 0; m < items_.n_modalities(); ++m) {
    const std::int64_t dim = items_.matrix(m).cols;
    kernels_.score_panel(packed, items, dim, &worker.panel[static_cast<std::size_t>(m * entries)]);
    packed += dim * kernels_.mr;
    items += dim * kernels_.nr;
  }
  int total = 0;
  for (int r = 0; r < kernels_.mr; ++r) {
    hits.counts[r] = 0;
    if (queries.first + r >= queries.last) continue;
    for (int lane = 0; lane < kernels_.nr; ++lane) {
      const int at = r * kernels_.nr + lane;
      const float value = queries_.combine(queries.first + r, order_.tiles[tile].group,
                                           &worker.panel[static_cast<std::size_t>(at)], entries);
      if (!(value >= queries.thresholds[r])) continue;
      hits.scores[r * kernels_.nr + hits.counts[r]] = value;
      hits.lanes[r * kernels_.nr + hits.counts[r]++] = lane;
      ++total;
    }
  }
  return total;
}

void Search::scan_panel(std::size_t tile, std::int64_t item, const float* items, const QueryPanel& queries,
                        Worker& worker) const {
  std::array<float, kMaxPanelEntries> scores;
  std::array<std::int32_t, kMaxPanelEntries> lanes;
  std::array<std::int32_t, kMaxPanelEntries> counts;
  const kernels::PanelHits hits{scores.data(), lanes.data(), counts.data()};
  if (screen(tile, items, queries, hits, worker) == 0) return;
  const std::int64_t n_lanes = order_.tiles[tile].end - item;
  for (int r = 0; r < static_cast<int>(queries.last - queries.first); ++r) {
    for (int i = r * kernels_.nr; i < r * kernels_.nr + counts[static_cast<std::size_t>(r)]; ++i) {
      const auto at = static_cast<std::size_t>(i);
      // The threshold may have risen since the panel was screened; beyond the tile are the panel's zeros.
      if (lanes[at] < n_lanes && scores[at] >= queries.thresholds[r]) {
        keep(order_.tiles[tile].group, queries.first + r, scores[at], queries.bounds[r], item + lanes[at],
             queries.thresholds[r], worker.candidates);
      }
    }
  }
}

void Search::scan_rows(std::size_t tile, std::int64_t first, std::int64_t last, Worker& worker) const {
  const Tile& t = order_.tiles[tile];
  const std::int64_t n = t.end - t.begin;
  const int n_modalities = items_.n_modalities();
  const auto& present = items_.groups()[static_cast<std::size_t>(t.group)].present;
  const std::int32_t* ids = &order_.ids[static_cast<std::size_t>(t.begin)];
  worker.panel.assign(static_cast<std::size_t>(n * (n_modalities + 1)), 0.0F);
  for (std::int64_t q = first; q < last; ++q) {
    const double bound = tile_bound(q, tile);
    float threshold = tile_threshold(worker.candidates, q, t.group, bound);
    if (threshold == std::numeric_limits<float>::infinity()) continue;
    float* const fused = worker.panel.data() + n * n_modalities;
    std::fill_n(fused, n, 0.0F);
    for (int m = 0; m < n_modalities; ++m) {
      const auto& matrix = items_.matrix(m);
      if (!present[static_cast<std::size_t>(m)]) continue;
      float* const scores = worker.panel.data() + n * m;
      worker.queries.resize(static_cast<std::size_t>(matrix.cols));
      queries_.weighted(q, m, worker.queries.data());
      kernels_.score_rows(worker.queries.data(), matrix.data, matrix.stride, ids, n, matrix.cols, scores);
      for (std::int64_t i = 0; i < n; ++i) {
        if (items_.cosine()) scores[i] *= static_cast<float>(items_.inverse_norm_of(ids[i], m));
        fused[i] += scores[i];
      }
    }
    for (std::int64_t i = 0; i < n; ++i) {
      const float value = is_linear(args_.fusion) ? fused[i] : queries_.combine(q, t.group, worker.panel.data() + i, n);
      if (value >= threshold) keep(t.group, q, value, bound, t.begin + i, threshold, worker.candidates);
    }
  }
}

void Search::scan_tile(std::size_t tile, std::int64_t first, std::int64_t last, const float* queries,
                       Worker& worker) const {
  if (last - first <= kFewQueries) return scan_rows(tile, first, last, worker);
  const Tile& t = order_.tiles[tile];
  const std::int64_t dim = items_.total_dim(), mr = kernels_.mr, nr = kernels_.nr;
  const std::int64_t n_panels = (t.end - t.begin + nr - 1) / nr;
  worker.items.resize(static_cast<std::size_t>(n_panels * nr * dim));
  for (std::int64_t p = 0; p < n_panels; ++p) {
    const std::int64_t begin = t.begin + p * nr;
    items_.pack(kernels_, order_, t, begin, std::min(t.end, begin + nr),
                &worker.items[static_cast<std::size_t>(p * nr * dim)]);
  }
  const std::int64_t n_query_panels = (last - first + mr - 1) / mr;
  worker.thresholds.assign(static_cast<std::size_t>(n_query_panels * mr), std::numeric_limits<float>::infinity());
  worker.bounds.resize(static_cast<std::size_t>(last - first));
  for (std::int64_t q = first; q < last; ++q) {
    const auto at = static_cast<std::size_t>(q - first);
    worker.bounds[at] = tile_bound(q, tile);
    worker.thresholds[at] = tile_threshold(worker.candidates, q, t.group, worker.bounds[at]);
  }
  // A run of query panels stays in L2 while every panel of the tile passes by.
  const std::int64_t run = std::max<std::int64_t>(1, kQueryFloats / (dim * mr));
  for (std::int64_t run_begin = 0; run_begin < n_query_panels; run_begin += run) {
    const std::int64_t run_end = std::min(n_query_panels, run_begin + run);
    for (std::int64_t p = 0; p < n_panels; ++p) {
      for (std::int64_t qp = run_begin; qp < run_end; ++qp) {
        const std::int64_t from = qp * mr;
        const QueryPanel panel{first + from, std::min(last, first + from + mr), queries + from * dim,
                               &worker.thresholds[static_cast<std::size_t>(from)],
                               &worker.bounds[static_cast<std::size_t>(from)]};
        scan_panel(tile, t.begin + p * nr, &worker.items[static_cast<std::size_t>(p * nr * dim)], panel, worker);
      }
    }
  }
}

void Search::score_all(std::int64_t q, ExactTopk& best) const {
  const auto consider = [&](std::int32_t id) {
    if (filters_.admit(q, id)) best.push(queries_.score(kernels_, q, id), id);
  };
  if (args_.allow.given() && !args_.has_allow_ids) {
    std::for_each_n(args_.allow.row_indices(q), args_.allow.row_size(q), consider);
    return;
  }
  std::for_each(order_.ids.begin(), order_.ids.end(), consider);
  std::for_each(order_.irregular_ids.begin(), order_.irregular_ids.end(), consider);
}

void Search::finish(std::int64_t q, std::span<const std::unique_ptr<Worker>> workers, const TopkOut& out,
                    const MatrixView<double>& parts) const {
  ExactTopk best(args_.k);
  if (scored_exactly(q)) {
    score_all(q, best);
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
    for (const std::int32_t id : order_.irregular_ids) {
      if (filters_.admit(q, id)) best.push(queries_.score(kernels_, q, id), id);
    }
  }
  const std::int64_t found = best.write(q, out);
  if (parts.data == nullptr) return;
  const int n_modalities = items_.n_modalities();
  for (std::int64_t i = 0; i < found; ++i) {
    queries_.score(kernels_, q, out.ids.row(q)[i], parts.row(q) + i * n_modalities);
  }
  std::fill(parts.row(q) + found * n_modalities, parts.row(q) + args_.k * n_modalities, 0.0);
}

void Search::run(const TopkOut& out, const MatrixView<double>& parts) {
  cut();
  const std::int64_t n_queries = queries_.size(), n_blocks = (n_queries + block_ - 1) / block_;
  const auto n_tiles = static_cast<std::int64_t>(order_.tiles.size());
  const std::int64_t n_chunks = workers_own_blocks_ ? n_blocks : std::max(n_tiles, block_);
  std::vector<std::unique_ptr<Worker>> workers(static_cast<std::size_t>(plan_workers(n_chunks, args_.num_threads)));
  const auto worker_for = [&](int i, std::int64_t first, std::int64_t last) -> Worker& {
    auto& worker = workers[static_cast<std::size_t>(i)];
    if (!worker) {
      worker = new_worker();
      worker->candidates.start(first, last);
    }
    return *worker;
  };
  if (workers_own_blocks_) {
    parallel_for(n_blocks, args_.num_threads, [&](std::int64_t b, int i) {
      const std::int64_t first = b * block_, last = std::min(n_queries, first + block_);
      Worker& worker = worker_for(i, first, last);
      worker.candidates.start(first, last);
      pack_queries(first, last, worker.queries);
      for (std::size_t tile = 0; tile < order_.tiles.size(); ++tile) {
        scan_tile(tile, first, last, worker.queries.data(), worker);
      }
      const std::span own(&workers[static_cast<std::size_t>(i)], 1);
      for (std::int64_t q = first; q < last; ++q) finish(q, own, out, parts);
    });
    return;
  }
  for (std::int64_t first = 0; first < n_queries; first += block_) {
    const std::int64_t last = std::min(n_queries, first + block_);
    std::vector<float> packed;
    if (last - first > kFewQueries) pack_queries(first, last, packed);
    for (auto& worker : workers) {
      if (worker) worker->candidates.start(first, last);
    }
    parallel_for(n_tiles, args_.num_threads, [&](std::int64_t tile, int i) {
      scan_tile(static_cast<std::size_t>(tile), first, last, packed.data(), worker_for(i, first, last));
    });
    parallel_for(last - first, args_.num_threads, [&](std::int64_t q, int) { finish(first + q, workers, out, parts); });
  }
}

}  // namespace

struct FusedIndex::State {
  FusedItems items;
  ScanOrder all;  // the scan without an allow-list, made once

  explicit State(const FusedItemsArgs& args)
      : items(args), all(items.scan_order(tile_items_for(items.total_dim()), nullptr)) {}
};

FusedIndex::FusedIndex(const FusedItemsArgs& args) : state_(std::make_unique<State>(args)) {}
FusedIndex::~FusedIndex() = default;
FusedIndex::FusedIndex(FusedIndex&&) noexcept = default;
FusedIndex& FusedIndex::operator=(FusedIndex&&) noexcept = default;

std::int64_t FusedIndex::n_items() const { return state_->items.n_items(); }
std::int64_t FusedIndex::n_modalities() const { return state_->items.n_modalities(); }

void FusedIndex::topk(const FuseTopkArgs& args, const TopkOut& out, MatrixView<double> parts) const {
  const FusedItems& items = state_->items;
  validate(args, items.args(), out, parts);
  if (!args.has_allow_ids) {
    Search(items, state_->all, args).run(out, parts);
    return;
  }
  std::vector<char> allowed(static_cast<std::size_t>(items.n_items()), 0);
  for (const std::int32_t id : args.allow_ids) allowed[static_cast<std::size_t>(id)] = 1;
  const ScanOrder order = items.scan_order(tile_items_for(items.total_dim()), &allowed);
  Search(items, order, args).run(out, parts);
}

void FusedIndex::score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                             MatrixView<double> parts) const {
  const FusedItems& items = state_->items;
  validate_pairs(args, items.args(), pairs);
  const Queries queries(items, args, state_->all);
  const auto& kernels = kernel_table();
  parallel_for(pairs.rows, args.num_threads, [&](std::int64_t q, int) {
    for (std::int64_t j = pairs.indptr[q]; j < pairs.indptr[q + 1]; ++j) {
      const std::int64_t at = j - pairs.indptr[0];
      out[static_cast<std::size_t>(at)] =
          queries.score(kernels, q, pairs.indices[j], parts.data == nullptr ? nullptr : parts.row(at));
    }
  });
}

}  // namespace recfuse
