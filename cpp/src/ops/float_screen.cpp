#include "ops/float_screen.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "isa/dispatch.hpp"

namespace recfuse {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::int64_t kTileFloats = 1 << 18;   // 1 MiB of packed items: half an L2, or a piece of the L3
constexpr std::int64_t kQueryFloats = 1 << 17;  // packed queries that stay in L2 while panels of items pass by
constexpr int kMaxPanelEntries = 14 * 32;

}  // namespace

FloatScreen::FloatScreen(const Queries& queries, const ScanOrder& order, const Filters& filters)
    : queries_(queries), items_(queries.items()), order_(order), filters_(filters), kernels_(kernel_table()) {}

std::int64_t FloatScreen::tile_items(std::int64_t total_dim) {
  // A multiple of 64, so that a tile is whole panels on every instruction set.
  return std::clamp<std::int64_t>(kTileFloats / total_dim / 64 * 64, 64, 512);
}

FloatScreen::Packed FloatScreen::pack(std::int64_t first, std::int64_t last) const {
  Packed packed{first, last, {}};
  if (reads_rows()) return packed;
  const std::int64_t panel = kernels_.mr * items_.total_dim();
  packed.panels.resize(static_cast<std::size_t>((last - first + kernels_.mr - 1) / kernels_.mr * panel));
  float* out = packed.panels.data();
  for (std::int64_t q = first; q < last; q += kernels_.mr, out += panel) {
    queries_.pack(kernels_, q, std::min(last, q + kernels_.mr), out);
  }
  return packed;
}

double FloatScreen::tile_bound(std::int64_t q, std::size_t tile) const {
  const float* norms = &order_.tile_norms[tile * static_cast<std::size_t>(items_.n_modalities())];
  return queries_.bound(q, order_.tiles[tile].group, norms);
}

float FloatScreen::tile_threshold(const Candidates& candidates, std::int64_t q, int group, double bound) const {
  const double factor = queries_.factor(q, group);
  if (factor == 0 || !queries_.scanned(q)) return kInfinity;
  double lowest = candidates.threshold(q) - bound;
  if (linear()) lowest /= factor;
  // Two ulps down: one for the division, one for the conversion.
  const float rounded = static_cast<float>(lowest);
  return std::nextafter(std::nextafter(rounded, -kInfinity), -kInfinity);
}

void FloatScreen::keep(int group, std::int64_t q, float screened, double bound, std::int64_t item, float& threshold,
                       Candidates& candidates) const {
  float value = screened;
  if (linear()) value *= static_cast<float>(queries_.factor(q, group));
  if (candidates.push(q, value, bound, order_.ids[static_cast<std::size_t>(item)])) {
    threshold = tile_threshold(candidates, q, group, bound);
  }
}

int FloatScreen::screen(std::size_t tile, const float* items, const QueryPanel& queries, const kernels::PanelHits& hits,
                        Scratch& scratch) const {
  if (linear()) {
    return kernels_.screen_panel(queries.packed, items, items_.total_dim(), queries.thresholds, hits);
  }
  const std::int64_t entries = kernels_.mr * kernels_.nr;
  scratch.scores.resize(static_cast<std::size_t>(entries * items_.n_modalities()));
  const float* packed = queries.packed;
  for (int m = 0; m < items_.n_modalities(); ++m) {
    const std::int64_t dim = items_.matrix(m).cols;
    kernels_.score_panel(packed, items, dim, &scratch.scores[static_cast<std::size_t>(m * entries)]);
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
                                           &scratch.scores[static_cast<std::size_t>(at)], entries);
      if (!(value >= queries.thresholds[r])) continue;
      hits.scores[r * kernels_.nr + hits.counts[r]] = value;
      hits.lanes[r * kernels_.nr + hits.counts[r]++] = lane;
      ++total;
    }
  }
  return total;
}

void FloatScreen::scan_panel(std::size_t tile, std::int64_t item, const float* items, const QueryPanel& queries,
                             Scratch& scratch, Candidates& candidates) const {
  std::array<float, kMaxPanelEntries> scores;
  std::array<std::int32_t, kMaxPanelEntries> lanes;
  std::array<std::int32_t, kMaxPanelEntries> counts;
  const kernels::PanelHits hits{scores.data(), lanes.data(), counts.data()};
  if (screen(tile, items, queries, hits, scratch) == 0) return;
  const std::int64_t n_lanes = order_.tiles[tile].end - item;
  for (int r = 0; r < static_cast<int>(queries.last - queries.first); ++r) {
    for (int i = r * kernels_.nr; i < r * kernels_.nr + counts[static_cast<std::size_t>(r)]; ++i) {
      const auto at = static_cast<std::size_t>(i);
      // The threshold may have risen since the panel was screened; beyond the tile are the panel's zeros.
      if (lanes[at] < n_lanes && scores[at] >= queries.thresholds[r]) {
        keep(order_.tiles[tile].group, queries.first + r, scores[at], queries.bounds[r], item + lanes[at],
             queries.thresholds[r], candidates);
      }
    }
  }
}

void FloatScreen::scan_rows(std::size_t tile, const Packed& packed, Scratch& scratch, Candidates& candidates) const {
  const Tile& t = order_.tiles[tile];
  const std::int64_t n = t.end - t.begin;
  const int n_modalities = items_.n_modalities();
  const auto& present = items_.groups()[static_cast<std::size_t>(t.group)].present;
  const std::int32_t* ids = &order_.ids[static_cast<std::size_t>(t.begin)];
  scratch.scores.assign(static_cast<std::size_t>(n * (n_modalities + 1)), 0.0F);
  for (std::int64_t q = packed.first; q < packed.last; ++q) {
    candidates.catch_up(q);
    const double bound = tile_bound(q, tile);
    float threshold = tile_threshold(candidates, q, t.group, bound);
    if (threshold == kInfinity) continue;
    float* const fused = scratch.scores.data() + n * n_modalities;
    std::fill_n(fused, n, 0.0F);
    for (int m = 0; m < n_modalities; ++m) {
      const auto& matrix = items_.matrix(m);
      if (!present[static_cast<std::size_t>(m)]) continue;
      float* const scores = scratch.scores.data() + n * m;
      scratch.query.resize(static_cast<std::size_t>(matrix.cols));
      queries_.weighted(q, m, scratch.query.data());
      kernels_.score_rows(scratch.query.data(), matrix.data, matrix.stride, ids, n, matrix.cols, scores);
      for (std::int64_t i = 0; i < n; ++i) {
        if (items_.cosine()) scores[i] *= static_cast<float>(items_.inverse_norm_of(ids[i], m));
        fused[i] += scores[i];
      }
    }
    for (std::int64_t i = 0; i < n; ++i) {
      const float value = linear() ? fused[i] : queries_.combine(q, t.group, scratch.scores.data() + i, n);
      if (value >= threshold) keep(t.group, q, value, bound, t.begin + i, threshold, candidates);
    }
  }
}

bool FloatScreen::reads_rows() const { return queries_.size() <= kFewQueries; }

void FloatScreen::prepare(std::size_t tile, Prepared& prepared) const {
  if (reads_rows()) return;
  const Tile& t = order_.tiles[tile];
  const std::int64_t dim = items_.total_dim(), nr = kernels_.nr;
  const std::int64_t n_panels = (t.end - t.begin + nr - 1) / nr;
  prepared.panels.resize(static_cast<std::size_t>(n_panels * nr * dim));
  float* panel = prepared.panels.data();
  for (std::int64_t begin = t.begin; begin < t.end; begin += nr, panel += nr * dim) {
    items_.pack(kernels_, order_, t, begin, std::min(t.end, begin + nr), panel);
  }
}

void FloatScreen::scan(std::size_t tile, const Prepared& prepared, const Packed& packed, Scratch& scratch,
                       Candidates& candidates) const {
  if (reads_rows()) return scan_rows(tile, packed, scratch, candidates);
  const std::int64_t first = packed.first, last = packed.last;
  const Tile& t = order_.tiles[tile];
  const std::int64_t dim = items_.total_dim(), mr = kernels_.mr, nr = kernels_.nr;
  const std::int64_t n_panels = (t.end - t.begin + nr - 1) / nr;
  const std::int64_t n_query_panels = (last - first + mr - 1) / mr;
  scratch.thresholds.assign(static_cast<std::size_t>(n_query_panels * mr), kInfinity);
  scratch.bounds.resize(static_cast<std::size_t>(last - first));
  for (std::int64_t q = first; q < last; ++q) {
    const auto at = static_cast<std::size_t>(q - first);
    candidates.catch_up(q);
    scratch.bounds[at] = tile_bound(q, tile);
    scratch.thresholds[at] = tile_threshold(candidates, q, t.group, scratch.bounds[at]);
  }
  // A run of query panels stays in L2 while every panel of the tile passes by.
  const std::int64_t run = std::max<std::int64_t>(1, kQueryFloats / (dim * mr));
  for (std::int64_t run_begin = 0; run_begin < n_query_panels; run_begin += run) {
    const std::int64_t run_end = std::min(n_query_panels, run_begin + run);
    for (std::int64_t p = 0; p < n_panels; ++p) {
      for (std::int64_t qp = run_begin; qp < run_end; ++qp) {
        const std::int64_t from = qp * mr;
        const QueryPanel panel{first + from, std::min(last, first + from + mr), packed.panels.data() + from * dim,
                               &scratch.thresholds[static_cast<std::size_t>(from)],
                               &scratch.bounds[static_cast<std::size_t>(from)]};
        scan_panel(tile, t.begin + p * nr, &prepared.panels[static_cast<std::size_t>(p * nr * dim)], panel, scratch,
                   candidates);
      }
    }
  }
}

}  // namespace recfuse
