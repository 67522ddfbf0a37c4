// What the neighbourhood of a query says about its threshold, before the scan.
#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/rounded_screen.hpp"

namespace recfuse {

using kernels::kPanelWidth;

namespace {

constexpr std::int32_t kMostNear = 1024;  // items of neighbourhoods that are looked at
constexpr float kUnknown = -std::numeric_limits<float>::infinity();

}  // namespace

void RoundedItems::find_near_panels() {
  near_panels_.resize(near_.n_centres());
  for (std::size_t t = 0; t < order_.tiles.size(); ++t) {
    const Tile& tile = order_.tiles[t];
    for (std::int64_t i = tile.begin; i < tile.end; ++i) {
      const auto id = static_cast<std::size_t>(order_.ids[static_cast<std::size_t>(i)]);
      const Panel panel{t, (i - tile.begin) / kPanelWidth};
      auto& panels = near_panels_[near_.of_item[id]];
      if (panels.empty() || panels.back() != panel) panels.push_back(panel);
    }
  }
  const auto& kernels = kernel_table();
  const std::int64_t dim = items_.total_dim(), n = static_cast<std::int64_t>(near_.n_centres());
  const std::vector<float> ones(static_cast<std::size_t>(kernels.nr), 1.0F);
  std::vector<const float*> rows(ones.size());
  centre_panels_.resize(static_cast<std::size_t>((n + kernels.nr - 1) / kernels.nr * kernels.nr * dim));
  for (std::int64_t begin = 0; begin < n; begin += kernels.nr) {
    const int n_rows = static_cast<int>(std::min<std::int64_t>(kernels.nr, n - begin));
    for (int r = 0; r < n_rows; ++r)
      rows[static_cast<std::size_t>(r)] = &near_.centres[static_cast<std::size_t>((begin + r) * dim)];
    kernels.pack_panel(rows.data(), ones.data(), n_rows, kernels.nr, dim,
                       &centre_panels_[static_cast<std::size_t>(begin * dim)]);
  }
}

void RoundedScreen::find_nearest(Packed& packed) const {
  if (!items_.neighbourhoods().any() || filters_.given()) return;
  const std::int64_t dim = items_.items().total_dim();
  const auto n_centres = static_cast<int>(Neighbourhoods::n_centres());
  packed.nearest.resize(static_cast<std::size_t>(packed.last - packed.first));
  std::vector<float> panel(static_cast<std::size_t>(kernels_.mr * dim));
  std::vector<float> scores(static_cast<std::size_t>(kernels_.mr * kernels_.nr)), best(2 * panel.size());
  for (std::int64_t first = packed.first; first < packed.last; first += kernels_.mr) {
    queries_.pack(kernels_, first, packed.last, panel.data());
    std::fill(best.begin(), best.end(), kUnknown);
    for (int centre = 0; centre < n_centres; centre += kernels_.nr) {
      kernels_.score_panel(panel.data(), items_.centre_panels() + centre * dim, dim, scores.data());
      for (int r = 0; r < kernels_.mr && first + r < packed.last; ++r) {
        Nearest& nearest = packed.nearest[static_cast<std::size_t>(first + r - packed.first)];
        float* const largest = &best[static_cast<std::size_t>(2 * r)];
        const float* const row = &scores[static_cast<std::size_t>(r * kernels_.nr)];
        for (int lane = 0; lane < kernels_.nr && centre + lane < n_centres; ++lane) {
          if (!(row[lane] > largest[1])) continue;
          largest[1] = row[lane];
          nearest.second = centre + lane;
          if (!(largest[1] > largest[0])) continue;
          std::swap(largest[0], largest[1]);
          std::swap(nearest.first, nearest.second);
        }
      }
    }
  }
}

/// What k items of the nearest neighbourhoods, none of them twice, surely reach: those whose lower ends are the
/// largest, scored canonically where they are few. With filters they may not be the query's, so nothing is known.
float RoundedScreen::known_threshold(std::int64_t q, const Packed& packed, Scratch& scratch) const {
  if (packed.nearest.empty() || !queries_.scanned(q) || queries_.factor(q, 0) == 0) return kUnknown;
  const Nearest& nearest = packed.nearest[static_cast<std::size_t>(q - packed.first)];
  const auto first = items_.near(nearest.first), second = items_.near(nearest.second);
  scratch.near_values.resize(kMostNear + kernels::kSpareCandidates);
  scratch.near_bounds.resize(scratch.near_values.size());
  scratch.near_ids.resize(scratch.near_values.size());
  scratch.keys.resize(scratch.near_values.size());
  scratch.rows.assign(1, static_cast<std::int32_t>(q - packed.first));
  std::int32_t count = 0;
  float reached = look_near(first, kUnknown, packed, scratch, count);
  scratch.near.clear();
  std::set_difference(second.begin(), second.end(), first.begin(), first.end(), std::back_inserter(scratch.near));
  reached = look_near(scratch.near, reached, packed, scratch, count);
  return queries_.args().k <= kMostNearList && reached > kUnknown ? score_near(q, reached, count, scratch) : reached;
}

/// Appends those items of some panels that may reach `reached`, and keeps those that may be among the k best; returns
/// what k of them surely reach.
float RoundedScreen::look_near(std::span<const RoundedItems::Panel> panels, float reached, const Packed& packed,
                               Scratch& scratch, std::int32_t& count) const {
  const std::int64_t k = queries_.args().k;
  for (std::size_t begin = 0, end = 0; begin < panels.size(); begin = end) {
    while (end < panels.size() && panels[end].tile == panels[begin].tile) ++end;
    scan_near(panels.subspan(begin, end - begin), reached, packed, scratch, count);
  }
  if (count < k) return reached;
  float *const values = scratch.near_values.data(), *const bounds = scratch.near_bounds.data();
  reached = std::max(reached, kernels_.kth_lower_end(values, bounds, count, k, scratch.keys.data()));
  count = static_cast<std::int32_t>(kernels_.keep_reaching(reached, count, values, bounds, scratch.near_ids.data()));
  return reached;
}

void RoundedScreen::scan_near(std::span<const RoundedItems::Panel> panels, float reached, const Packed& packed,
                              Scratch& scratch, std::int32_t& count) const {
  const std::size_t tile = panels[0].tile;
  const Tile& t = order().tiles[tile];
  const RoundedItems::RoundedTile rounded = items_.tile(tile, scratch.room);
  describe_queries(tile, rounded, packed, scratch);
  scratch.thresholds[0] = threshold(packed.first + scratch.rows[0], tile, packed, scratch.widths[0], reached);
  const QueryWords of_query = gather(tile, packed, scratch);
  const kernels::RoundedQueries query{of_query.words,         of_query.multipliers,  scratch.thresholds.data(),
                                      scratch.offsets.data(), scratch.slopes.data(), scratch.intercepts.data(),
                                      scratch.bounds.data()};
  const std::int32_t row = 0;
  const kernels::CandidateLists list{
      scratch.near_values.data(), scratch.near_bounds.data(), scratch.near_ids.data(), &count, &row, 0};
  const kernels::Segments segments = items_.segment_steps();
  for (const RoundedItems::Panel& panel : panels) {
    if (count > kMostNear - kPanelWidth) return;
    const std::int64_t begin = t.begin + panel.panel * kPanelWidth;
    const kernels::RoundedPanel items{rounded.panels + (begin - t.begin) * items_.steps(),
                                      &order().ids[static_cast<std::size_t>(begin)],
                                      static_cast<int>(std::min<std::int64_t>(kPanelWidth, t.end - begin)), nullptr, 0};
    screen_(1, query, items, segments, list);
  }
}

/// The least score of the k whose lower ends reach `reached`.
float RoundedScreen::score_near(std::int64_t q, float reached, std::int32_t count, const Scratch& scratch) const {
  std::array<std::int32_t, kMostNearList> ids;
  std::size_t n = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    if (n == static_cast<std::size_t>(queries_.args().k)) break;
    if (scratch.near_values[i] - scratch.near_bounds[i] < reached) continue;
    ids[n] = scratch.near_ids[i];
    items_.items().fetch(ids[n++]);
  }
  if (n < static_cast<std::size_t>(queries_.args().k)) return reached;
  float least = std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < n; ++i) least = std::min(least, queries_.score(kernels_, q, ids[i]));
  return std::max(reached, least);
}

}  // namespace recfuse
