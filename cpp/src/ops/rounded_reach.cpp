// Which queries look at a tile, and how far: no further than where the norms of the items leave them a chance.
#include <algorithm>
#include <limits>
#include <numeric>

#include "ops/rounded_screen.hpp"

namespace recfuse {

using kernels::kPanelWidth;

namespace {

// Relative: the score is rounded once, the rest is for float64. Absolute: for scores that are rounded to tiny numbers.
constexpr double kReachUp = 1 + 0x1p-20, kLeastReach = 0x1p-126;
constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();

}  // namespace

/// Per query and group, what a norm of 1 can add to a score; NaN, which reaches nothing, where nothing is ranked.
void RoundedScreen::measure_reach(Packed& packed) const {
  const auto& groups = items_.items().groups();
  const int n_modalities = items_.items().n_modalities();
  for (std::int64_t q = packed.first; q < packed.last; ++q) {
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const double factor = queries_.scanned(q) ? queries_.factor(q, static_cast<int>(g)) : 0.0;
      for (int m = 0; m < n_modalities; ++m) {
        const double norm = groups[g].present[static_cast<std::size_t>(m)] != 0 ? queries_.screen_norm(q, m) : 0.0;
        packed.reaches.push_back(factor == 0 ? kNothing : factor * norm * kReachUp);
      }
    }
  }
}

/// At least the score of an item of these norms, by Cauchy-Schwarz.
double RoundedScreen::reach(std::size_t row, int group, const float* norms, const Packed& packed) const {
  const std::size_t n_groups = items_.items().groups().size();
  const auto n_modalities = static_cast<std::size_t>(items_.items().n_modalities());
  const double* const reaches = &packed.reaches[(row * n_groups + static_cast<std::size_t>(group)) * n_modalities];
  double sum = kLeastReach;
  for (std::size_t m = 0; m < n_modalities; ++m) sum += reaches[m] * norms[m];
  return sum;
}

bool RoundedScreen::looks_at(std::size_t row, std::size_t tile, const Packed& packed, Candidates& candidates) const {
  const std::int64_t q = packed.first + static_cast<std::int64_t>(row);
  candidates.catch_up(q);
  const float* const norms = &order().tile_norms[tile * static_cast<std::size_t>(items_.items().n_modalities())];
  return reach(row, order().tiles[tile].group, norms, packed) >= candidates.threshold(q);
}

bool RoundedScreen::reaches(std::size_t tile, const Packed& packed, Candidates& candidates) const {
  for (std::size_t row = 0; row < static_cast<std::size_t>(packed.last - packed.first); ++row) {
    if (looks_at(row, tile, packed, candidates)) return true;
  }
  return false;
}

/// How many panels of a tile leave a query a chance; the first one does.
std::int32_t RoundedScreen::panels_in_reach(std::size_t row, std::size_t tile, std::int32_t n_panels,
                                            const Packed& packed, float threshold) const {
  if (!items_.ordered_by_norm()) return n_panels;
  const int group = order().tiles[tile].group;
  std::int32_t in_reach = 0, beyond = n_panels;  // beyond: not, unless it is n_panels
  if (reach(row, group, items_.panel_norms(tile, n_panels - 1), packed) >= threshold) return n_panels;
  while (beyond - in_reach > 1) {
    const std::int32_t panel = in_reach + (beyond - in_reach) / 2;
    (reach(row, group, items_.panel_norms(tile, panel), packed) >= threshold ? in_reach : beyond) = panel;
  }
  return beyond;
}

/// The queries that look at a tile, those that go furthest first, so that a panel of them ends where all do.
void RoundedScreen::choose_queries(std::size_t tile, const Packed& packed, Scratch& scratch,
                                   Candidates& candidates) const {
  const Tile& t = order().tiles[tile];
  const auto n_panels = static_cast<std::int32_t>((t.end - t.begin + kPanelWidth - 1) / kPanelWidth);
  scratch.rows.clear();
  scratch.ends.clear();
  bool some_stop = false;
  for (std::size_t row = 0; row < static_cast<std::size_t>(packed.last - packed.first); ++row) {
    if (!looks_at(row, tile, packed, candidates)) continue;
    const float threshold = candidates.threshold(packed.first + static_cast<std::int64_t>(row));
    scratch.rows.push_back(static_cast<std::int32_t>(row));
    scratch.ends.push_back(panels_in_reach(row, tile, n_panels, packed, threshold));
    some_stop = some_stop || scratch.ends.back() < n_panels;
  }
  if (!some_stop) return;
  std::vector<std::int32_t>& starts = scratch.starts;
  starts.assign(static_cast<std::size_t>(n_panels) + 1, 0);  // nobody ends before the first panel
  for (const std::int32_t end : scratch.ends) ++starts[static_cast<std::size_t>(n_panels - end) + 1];
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  scratch.sorted_rows.resize(scratch.rows.size());
  scratch.sorted_ends.resize(scratch.rows.size());
  for (std::size_t i = 0; i < scratch.rows.size(); ++i) {
    const auto at = static_cast<std::size_t>(starts[static_cast<std::size_t>(n_panels - scratch.ends[i])]++);
    scratch.sorted_rows[at] = scratch.rows[i];
    scratch.sorted_ends[at] = scratch.ends[i];
  }
  scratch.rows.swap(scratch.sorted_rows);
  scratch.ends.swap(scratch.sorted_ends);
}

/// Their words and multipliers in panels: those of the block where nothing has changed.
RoundedScreen::QueryWords RoundedScreen::gather(std::size_t tile, const Packed& packed, Scratch& scratch) const {
  const auto klass = static_cast<std::size_t>(items_.class_of(tile));
  const auto n = packed.last - packed.first, n_rows = static_cast<std::int64_t>(scratch.rows.size());
  const std::int64_t length = items_.query_words(), n_multipliers = items_.segment_steps().n - 1;
  const std::int32_t *const words = packed.panels[klass].data(), *const multipliers = packed.multipliers[klass].data();
  if (n_rows == n && std::is_sorted(scratch.rows.begin(), scratch.rows.end())) return {words, multipliers};
  const std::int64_t most = (n_rows + max_height() - 1) / max_height() * max_height();
  scratch.words.assign(static_cast<std::size_t>(most * length), 0);
  scratch.multipliers.assign(static_cast<std::size_t>(most * n_multipliers), 0);
  const auto copy = [&](const std::int32_t* from, std::int32_t* to, std::int64_t n_words) {
    for (std::int64_t begin = 0; begin < n_rows; begin += max_height()) {
      const std::int64_t used = std::min<std::int64_t>(max_height(), n_rows - begin), height = panel_height(used);
      for (std::int64_t r = 0; r < used; ++r) {
        const std::int64_t row = scratch.rows[static_cast<std::size_t>(begin + r)];
        const std::int64_t panel = row / max_height() * max_height();
        const std::int64_t stride = panel_height(std::min<std::int64_t>(max_height(), n - panel));
        const std::int32_t* in = from + panel * n_words + row - panel;
        std::int32_t* out = to + begin * n_words + r;
        for (std::int64_t i = 0; i < n_words; ++i, in += stride, out += height) *out = *in;
      }
    }
  };
  copy(words, scratch.words.data(), length);
  copy(multipliers, scratch.multipliers.data(), n_multipliers);
  return {scratch.words.data(), scratch.multipliers.data()};
}

}  // namespace recfuse
