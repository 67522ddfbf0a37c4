// What the neighbourhood of a query says about its threshold, before the scan.
#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/rounded_screen.hpp"

namespace recfuse {

using kernels::kPanelWidth;

namespace {

constexpr std::int32_t kMostNear = 1024;  // items of neighbourhoods that are looked at
constexpr std::size_t kNearRoom = kMostNear + kernels::kSpareCandidates;
constexpr int kMaxPanelHeight = kernels::kPanelHeights[std::size(kernels::kPanelHeights) - 1];
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

/// What k items of the nearest neighbourhoods, none of them twice, surely reach: those whose lower ends are the
/// largest, scored canonically where they are few. Queries that come one behind the other and share a neighbourhood
/// look at it together.
std::span<const float> RoundedScreen::known_thresholds(const Packed& packed, Scratch& scratch) const {
  if (nearest_.empty()) return {};
  NearScratch& near = scratch.near;
  const auto n_lists = static_cast<std::size_t>(std::min<std::int64_t>(max_height(), packed.last - packed.first));
  near.known.assign(static_cast<std::size_t>(packed.last - packed.first), kUnknown);
  near.values.resize(n_lists * kNearRoom);
  near.bounds.resize(n_lists * kNearRoom);
  near.ids.resize(n_lists * kNearRoom);
  near.keys.resize(kNearRoom);
  const auto nearest = [&](std::int32_t row) { return nearest_[static_cast<std::size_t>(packed.first + row)]; };
  const auto n = static_cast<std::int32_t>(near.known.size());
  for (std::int32_t row = 0; row < n;) {
    near.rows.clear();
    for (; row < n && near.rows.size() < n_lists; ++row) {
      if (!near.rows.empty() && nearest(row).first != nearest(near.rows[0]).first) break;
      const std::int64_t q = packed.first + row;
      if (queries_.scanned(q) && queries_.factor(q, 0) != 0) near.rows.push_back(row);
    }
    near.counts.assign(n_lists, 0);
    near.reached.assign(n_lists, kUnknown);
    if (near.rows.empty()) continue;
    const auto first = items_.near(nearest(near.rows[0]).first);
    look_near(first, 0, near.rows.size(), packed, scratch);
    for (std::size_t begin = 0, end = 0; begin < near.rows.size(); begin = end) {
      const int centre = nearest(near.rows[begin]).second;
      while (end < near.rows.size() && nearest(near.rows[end]).second == centre) ++end;
      const auto second = items_.near(centre);
      near.panels.clear();
      std::set_difference(second.begin(), second.end(), first.begin(), first.end(), std::back_inserter(near.panels));
      look_near(near.panels, begin, end, packed, scratch);
    }
    for (std::size_t list = 0; list < near.rows.size(); ++list) {
      const bool score = queries_.args().k <= kMostNearList && near.reached[list] > kUnknown;
      near.known[static_cast<std::size_t>(near.rows[list])] =
          score ? score_near(packed.first + near.rows[list], list, near) : near.reached[list];
    }
  }
  return near.known;
}

/// Appends, to lists [begin, end), those items of some panels that may reach what their k best do, and keeps those that
/// may be among them.
void RoundedScreen::look_near(std::span<const RoundedItems::Panel> panels, std::size_t begin, std::size_t end,
                              const Packed& packed, Scratch& scratch) const {
  NearScratch& near = scratch.near;
  const std::int64_t k = queries_.args().k;
  for (std::size_t panel = 0, next = 0; panel < panels.size(); panel = next) {
    while (next < panels.size() && panels[next].tile == panels[panel].tile) ++next;
    scan_near(panels.subspan(panel, next - panel), begin, end, packed, scratch);
  }
  for (std::size_t list = begin; list < end; ++list) {
    std::int32_t& count = near.counts[list];
    if (count < k) continue;
    float *const values = &near.values[list * kNearRoom], *const bounds = &near.bounds[list * kNearRoom];
    float& reached = near.reached[list];
    reached = std::max(reached, kernels_.kth_lower_end(values, bounds, count, k, near.keys.data()));
    count =
        static_cast<std::int32_t>(kernels_.keep_reaching(reached, count, values, bounds, &near.ids[list * kNearRoom]));
  }
}

/// The panels are of one tile.
void RoundedScreen::scan_near(std::span<const RoundedItems::Panel> panels, std::size_t begin, std::size_t end,
                              const Packed& packed, Scratch& scratch) const {
  NearScratch& near = scratch.near;
  const std::size_t tile = panels[0].tile;
  const Tile& t = order().tiles[tile];
  const RoundedItems::RoundedTile rounded = items_.tile(tile, near.room);
  scratch.rows.assign(near.rows.begin() + static_cast<std::ptrdiff_t>(begin),
                      near.rows.begin() + static_cast<std::ptrdiff_t>(end));
  describe_queries(tile, rounded, packed, scratch);
  for (std::size_t i = 0; i < scratch.rows.size(); ++i) {
    const std::int64_t q = packed.first + scratch.rows[i];
    scratch.thresholds[i] = threshold(q, tile, packed, scratch.widths[i], near.reached[begin + i]);
  }
  const QueryWords of_queries = gather(tile, packed, scratch);
  const kernels::RoundedQueries queries{of_queries.words,       of_queries.multipliers, scratch.thresholds.data(),
                                        scratch.offsets.data(), scratch.slopes.data(),  scratch.intercepts.data(),
                                        scratch.bounds.data()};
  std::array<std::int32_t, kMaxPanelHeight> lists;
  std::iota(lists.begin(), lists.end(), static_cast<std::int32_t>(begin));
  const kernels::CandidateLists found{near.values.data(), near.bounds.data(), near.ids.data(),
                                      near.counts.data(), lists.data(),       static_cast<std::int64_t>(kNearRoom)};
  const kernels::Segments segments = items_.segment_steps();
  const int height = panel_height(static_cast<std::int64_t>(end - begin));
  for (const RoundedItems::Panel& panel : panels) {
    if (*std::max_element(near.counts.begin(), near.counts.end()) > kMostNear - kPanelWidth) return;
    const std::int64_t first = t.begin + panel.panel * kPanelWidth;
    const kernels::RoundedPanel items{rounded.panels + (first - t.begin) * items_.steps(),
                                      &order().ids[static_cast<std::size_t>(first)],
                                      static_cast<int>(std::min<std::int64_t>(kPanelWidth, t.end - first)), nullptr, 0};
    screen_(height, queries, items, segments, found);
  }
}

/// The least score of the k whose lower ends reach what they are known to reach.
float RoundedScreen::score_near(std::int64_t q, std::size_t list, const NearScratch& near) const {
  const float reached = near.reached[list];
  const std::size_t first = list * kNearRoom;
  std::array<Queries::Pair, kMostNearList + kernels::kDots> pairs;
  const auto k = static_cast<std::size_t>(queries_.args().k);
  std::size_t n = 0;
  for (std::size_t i = first; i < first + static_cast<std::size_t>(near.counts[list]) && n < k; ++i) {
    if (near.values[i] - near.bounds[i] < reached) continue;
    pairs[n] = {q, near.ids[i]};
    items_.items().fetch(near.ids[i]);
    ++n;
  }
  if (n < k) return reached;
  float least = std::numeric_limits<float>::infinity();
  std::fill_n(pairs.begin() + static_cast<std::ptrdiff_t>(n), kernels::kDots, pairs[0]);
  for (std::size_t i = 0; i < n; i += kernels::kDots) {
    std::array<float, kernels::kDots> scores;
    queries_.score_four(kernels_, &pairs[i], scores.data());
    least = std::min(least, *std::min_element(scores.begin(), scores.end()));
  }
  return std::max(reached, least);
}

}  // namespace recfuse
