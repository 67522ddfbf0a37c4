#include "ops/rank_pairs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "isa/dispatch.hpp"
#include "parallel_for.hpp"
#include "recfuse/canonical.hpp"

namespace recfuse {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kLargest = std::numeric_limits<float>::max();
constexpr std::int64_t kPreparedFloats = 16 << 20;  // packed items at a time: 64 MiB
constexpr std::int64_t kPanelsTogether = 8;         // of queries, for which tiles are read once

/// At least two ulps from `value`, on the side of `sign`: one for its division, one for its conversion. As nextafter()
/// twice, for a tenth of the time. An infinity becomes the largest number first.
float two_ulps(double value, double sign) {
  const double finite = std::clamp(value, -kLargest, kLargest);
  return static_cast<float>(finite + sign * (std::abs(finite) * 0x1p-21 + 0x1p-126));
}

}  // namespace

PairRanking::PairRanking(const Queries& queries, const ScanOrder& order, const CsrView& pairs, const PairRanks& out)
    : queries_(queries),
      order_(order),
      pairs_(pairs),
      out_(out),
      kernels_(kernel_table()),
      scores_(static_cast<std::size_t>(pairs.nnz())) {}

/// Tiles are packed some at a time, once for all queries; blocks of queries go through them beside one another.
void PairRanking::run() {
  const std::int64_t n = queries_.size(), n_tiles = static_cast<std::int64_t>(order_.tiles.size());
  const int num_threads = queries_.args().num_threads;
  parallel_for(n, num_threads, [&](std::int64_t q, int) { start(q); });
  const std::int64_t block = kPanelsTogether * kernels_.mr, n_blocks = (n + block - 1) / block;
  std::int64_t longest = 1;
  for (const Tile& tile : order_.tiles) longest = std::max(longest, tile.end - tile.begin);
  const std::int64_t chunk = std::max<std::int64_t>(1, kPreparedFloats / (longest * items().total_dim()));
  std::vector<Panels> prepared(static_cast<std::size_t>(std::min(chunk, n_tiles)));
  std::vector<Scratch> scratch(static_cast<std::size_t>(plan_workers(n_blocks, num_threads)));
  for (std::int64_t first = 0; first < n_tiles; first += chunk) {
    const std::int64_t n_prepared = std::min(chunk, n_tiles - first);
    parallel_for(n_prepared, num_threads, [&](std::int64_t i, int) {
      prepare(order_.tiles[static_cast<std::size_t>(first + i)], prepared[static_cast<std::size_t>(i)]);
    });
    parallel_for(n_blocks, num_threads, [&](std::int64_t b, int worker) {
      scan(b * block, std::min(n, (b + 1) * block), static_cast<std::size_t>(first), prepared,
           static_cast<std::size_t>(n_prepared), scratch[static_cast<std::size_t>(worker)]);
    });
  }
  parallel_for(n, num_threads, [&](std::int64_t q, int) { finish(q); });
}

void PairRanking::start(std::int64_t q) {
  for (std::int64_t j = begin(q); j < begin(q) + pairs_.row_size(q); ++j) {
    const auto at = static_cast<std::size_t>(j);
    scores_[at] = queries_.score(kernels_, q, pairs_.row_indices(q)[j - begin(q)]);
    out_.rank[at] = out_.first[at] = out_.last[at] = 0;
  }
  out_.n_ranked[static_cast<std::size_t>(q)] = 0;
}

void PairRanking::prepare(const Tile& tile, Panels& panels) const {
  const std::int64_t nr = kernels_.nr, dim = items().total_dim(), n = (tile.end - tile.begin + nr - 1) / nr;
  panels.resize(static_cast<std::size_t>(n * nr * dim));
  for (std::int64_t p = 0; p < n; ++p) {
    const std::int64_t from = tile.begin + p * nr;
    items().pack(kernels_, order_, tile, from, std::min(tile.end, from + nr), panels.data() + p * nr * dim);
  }
}

void PairRanking::scan(std::int64_t first, std::int64_t last, std::size_t first_tile,
                       const std::vector<Panels>& prepared, std::size_t n_tiles, Scratch& scratch) const {
  const std::int64_t mr = kernels_.mr, panel_floats = mr * items().total_dim();
  scratch.packed.resize(static_cast<std::size_t>((last - first + mr - 1) / mr * panel_floats));
  for (std::int64_t q = first; q < last; q += mr) {
    queries_.pack(kernels_, q, std::min(last, q + mr), scratch.packed.data() + (q - first) / mr * panel_floats);
  }
  for (std::size_t t = 0; t < n_tiles; ++t) {
    for (std::int64_t q = first; q < last; q += mr) {
      scan_tile({q, std::min(last, q + mr)}, scratch.packed.data() + (q - first) / mr * panel_floats, first_tile + t,
                prepared[t], scratch);
    }
  }
}

void PairRanking::scan_tile(const QueryPanel& panel, const float* packed, std::size_t tile, const Panels& panels,
                            Scratch& scratch) const {
  const Tile& t = order_.tiles[tile];
  const std::int64_t base = begin(panel.first),
                     n_pairs = begin(panel.last - 1) + pairs_.row_size(panel.last - 1) - base;
  scratch.marks.above.resize(static_cast<std::size_t>(n_pairs));
  scratch.marks.below.resize(static_cast<std::size_t>(n_pairs));
  bool any = false;
  for (std::int64_t q = panel.first; q < panel.last; ++q) {
    if (!scanned(q) || queries_.factor(q, t.group) == 0) continue;
    mark(q, tile, base, scratch.marks);
    any = true;
  }
  if (!any) return;
  for (std::int64_t item = t.begin; item < t.end; item += kernels_.nr) {
    const int n = static_cast<int>(std::min<std::int64_t>(kernels_.nr, t.end - item));
    screen(panel, packed, t.group, panels.data() + (item - t.begin) * items().total_dim(), scratch);
    for (std::int64_t q = panel.first; q < panel.last; ++q) {
      if (!scanned(q) || queries_.factor(q, t.group) == 0) continue;
      const float* const values = scratch.scores.data() + (q - panel.first) * kernels_.nr;
      unsigned open = kernels_.count_above(values, n, scratch.marks.above.data() + (begin(q) - base),
                                           scratch.marks.below.data() + (begin(q) - base), pairs_.row_size(q),
                                           out_.first.data() + begin(q));
      for (; open != 0; open &= open - 1) {
        const int lane = __builtin_ctz(open);
        scratch.open.push_back({{q, order_.ids[static_cast<std::size_t>(item + lane)]}, values[lane]});
      }
    }
  }
  settle(base, scratch);
}

/// An item whose screened value is v scores within bound of v * factor (of v, where the fusion is no sum).
void PairRanking::mark(std::int64_t q, std::size_t tile, std::int64_t base, Marks& marks) const {
  const int group = order_.tiles[tile].group;
  const double bound =
      queries_.bound(q, group, &order_.tile_norms[tile * static_cast<std::size_t>(items().n_modalities())]);
  const double worth = is_linear(queries_.args().fusion) ? queries_.factor(q, group) : 1;
  for (std::int64_t j = begin(q); j < begin(q) + pairs_.row_size(q); ++j) {
    const auto at = static_cast<std::size_t>(j - base);
    const double score = scores_[static_cast<std::size_t>(j)];
    const bool ranked = score == score;  // nothing is better than a NaN, nor worse
    marks.above[at] = ranked ? two_ulps((score + bound) / worth, 1) : kInfinity;
    marks.below[at] = ranked ? two_ulps((score - bound) / worth, -1) : kInfinity;
  }
}

/// Screened values of the queries of a panel and as many items.
void PairRanking::screen(const QueryPanel& panel, const float* packed, int group, const float* panel_items,
                         Scratch& scratch) const {
  const std::int64_t entries = std::int64_t{kernels_.mr} * kernels_.nr;
  if (is_linear(queries_.args().fusion)) {
    scratch.scores.resize(static_cast<std::size_t>(entries));
    return kernels_.score_panel(packed, panel_items, items().total_dim(), scratch.scores.data());
  }
  scratch.scores.resize(static_cast<std::size_t>(entries * (items().n_modalities() + 1)));
  float* const similarities = scratch.scores.data() + entries;
  for (int m = 0; m < items().n_modalities(); ++m) {
    const std::int64_t dim = items().matrix(m).cols;
    kernels_.score_panel(packed, panel_items, dim, similarities + m * entries);
    packed += dim * kernels_.mr;
    panel_items += dim * kernels_.nr;
  }
  for (std::int64_t i = 0; i < (panel.last - panel.first) * kernels_.nr; ++i) {
    scratch.scores[static_cast<std::size_t>(i)] =
        queries_.combine(panel.first + i / kernels_.nr, group, similarities + i, entries);
  }
}

/// What the screen has left open, by the canonical scores.
void PairRanking::settle(std::int64_t base, Scratch& scratch) const {
  const auto n = static_cast<std::int64_t>(scratch.open.size());
  for (std::int64_t i = 0; i < n; i += kernels::kDots) {
    const Open* const open = scratch.open.data() + i;
    const int together = static_cast<int>(std::min<std::int64_t>(kernels::kDots, n - i));
    Queries::Pair pairs[kernels::kDots];
    float scores[kernels::kDots];
    for (int j = 0; j < together; ++j) pairs[j] = open[j].pair;
    if (together == kernels::kDots) {
      queries_.score_four(kernels_, pairs, scores);
    } else {
      for (int j = 0; j < together; ++j) scores[j] = queries_.score(kernels_, pairs[j].query, pairs[j].id);
    }
    for (int j = 0; j < together; ++j) {
      const std::int64_t q = pairs[j].query, from = begin(q);
      for (std::int64_t p = from; p < from + pairs_.row_size(q); ++p) {
        const auto at = static_cast<std::size_t>(p - base);
        const float value = open[j].value;
        if (value >= scratch.marks.below[at] && !(value >= scratch.marks.above[at])) {
          count_pair(p, pairs_.row_indices(q)[p - from], pairs[j].id, scores[j], 1);
        }
      }
    }
  }
  scratch.open.clear();
}

/// An item that scores `score` against pair p, whose item is `own`.
void PairRanking::count_pair(std::int64_t p, std::int32_t own, std::int32_t id, float score, int times) const {
  const auto at = static_cast<std::size_t>(p);
  if (score > scores_[at]) out_.first[at] += times;
  if (score == scores_[at]) out_.last[at] += times;
  if (score == scores_[at] && id < own) out_.rank[at] += times;
}

void PairRanking::count(std::int64_t q, std::int32_t id, int times) const {
  const float score = queries_.score(kernels_, q, id);
  if (score != score) return;  // is not ranked
  out_.n_ranked[static_cast<std::size_t>(q)] += times;
  const std::int64_t from = begin(q);
  for (std::int64_t p = from; p < from + pairs_.row_size(q); ++p) {
    count_pair(p, pairs_.row_indices(q)[p - from], id, score, times);
  }
}

/// What no screen has seen is counted, what is excluded is taken back, and counts become ranks.
void PairRanking::finish(std::int64_t q) const {
  if (queries_.scanned(q)) {
    for (const Tile& tile : order_.tiles) {
      if (queries_.factor(q, tile.group) != 0)
        out_.n_ranked[static_cast<std::size_t>(q)] += static_cast<std::int32_t>(tile.end - tile.begin);
    }
  } else {
    for (const std::int32_t id : order_.ids) count(q, id, 1);
  }
  for (const std::int32_t id : order_.irregular_ids) count(q, id, 1);
  const CsrView& exclude = queries_.args().exclude;
  const std::int32_t* const excluded = exclude.given() ? exclude.row_indices(q) : nullptr;
  const std::int64_t n_excluded = exclude.given() ? exclude.row_size(q) : 0;
  for (std::int64_t e = 0; e < n_excluded; ++e) count(q, excluded[e], -1);
  for (std::int64_t p = begin(q); p < begin(q) + pairs_.row_size(q); ++p) {
    const auto at = static_cast<std::size_t>(p);
    const std::int32_t own = pairs_.row_indices(q)[p - begin(q)];
    const bool ranked = scores_[at] == scores_[at] && !std::binary_search(excluded, excluded + n_excluded, own);
    const std::int32_t better = out_.first[at];
    out_.rank[at] = ranked ? better + out_.rank[at] + 1 : 0;
    out_.first[at] = ranked ? better + 1 : 0;
    out_.last[at] = ranked ? better + out_.last[at] : 0;
  }
}

}  // namespace recfuse
