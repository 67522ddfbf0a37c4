#include "ops/rounded_screen.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "isa/dispatch.hpp"

namespace recfuse {
namespace {

using kernels::kPanelHeights;
using kernels::kPanelWidth;

constexpr int kMaxHeight = kPanelHeights[std::size(kPanelHeights) - 1];
// The canonical score is rounded to float32, half an ulp; the rest is for what float64 rounds here and there.
constexpr double kRounding = 0x1p-23;

int height_for(std::int64_t n) { return *std::lower_bound(std::begin(kPanelHeights), std::end(kPanelHeights), n); }

/// The first integer that is not surely too small.
std::int32_t round_threshold(double x) {
  constexpr std::int32_t kLowest = std::numeric_limits<std::int32_t>::min();
  constexpr std::int32_t kLargest = std::numeric_limits<std::int32_t>::max();
  const double down = std::floor(x - std::abs(x) * 0x1p-40) - 1;
  if (!(down > kLowest)) return kLowest;
  return down < kLargest ? static_cast<std::int32_t>(down) : kLargest;
}

}  // namespace

RoundedScreen::RoundedScreen(const Queries& queries, const RoundedItems& items)
    : queries_(queries),
      items_(items),
      kernels_(kernel_table()),
      screen_(items.format() == Format::kInt8 ? kernels_.screen_int8 : kernels_.screen_int16) {}

int RoundedScreen::panel_queries() const { return kMaxHeight; }

RoundedScreen::Packed RoundedScreen::pack(std::int64_t first, std::int64_t last) const {
  const auto n = static_cast<std::size_t>(last - first), n_classes = static_cast<std::size_t>(items_.n_classes());
  const auto n_modalities = static_cast<std::size_t>(items_.items().n_modalities());
  const auto& groups = items_.items().groups();
  const std::int64_t whole = (last - first) / kMaxHeight * kMaxHeight, rest = last - first - whole;
  const std::int64_t rows = whole + (rest > 0 ? height_for(rest) : 0);
  Packed packed{first, last, {}, {}, {}, {}, {}};
  packed.units.resize(n * n_classes);
  packed.offsets.resize(n * n_classes);
  packed.lost_norms.resize(n * n_classes * n_modalities);
  packed.constants.resize(n * groups.size());
  packed.panels.resize(n_classes);
  for (std::size_t klass = 0; klass < n_classes; ++klass) {
    packed.panels[klass].resize(static_cast<std::size_t>(rows * items_.steps()));
    for (std::int64_t q = first; q < last; ++q) {
      if (queries_.scanned(q)) round_query(q, static_cast<int>(klass), packed);
    }
  }
  if (!items_.centred()) return packed;
  std::vector<double> products(n_modalities);
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t q = first + static_cast<std::int64_t>(i);
    for (std::size_t m = 0; m < n_modalities; ++m) {
      const double* const centre = items_.centre(static_cast<int>(m));
      products[m] = centre == nullptr ? 0.0 : queries_.weighted_product(q, static_cast<int>(m), centre);
    }
    for (std::size_t g = 0; g < groups.size(); ++g) {
      double sum = 0;
      for (std::size_t m = 0; m < n_modalities; ++m) sum += groups[g].present[m] ? products[m] : 0.0;
      packed.constants[i * groups.size() + g] = sum;
    }
  }
  return packed;
}

/// All modalities share a unit, for their products share a sum.
double RoundedScreen::query_unit(std::int64_t q, int klass) const {
  double largest = 0, squares = 0;
  for (int m = 0; m < items_.items().n_modalities(); ++m) {
    const auto& matrix = queries_.args().queries[static_cast<std::size_t>(m)];
    const double unit = items_.unit(klass, m), scale = queries_.scale(q, m) * unit;
    largest = std::max(largest, kernels_.largest_element(matrix.row(q), scale, nullptr, matrix.cols));
    squares += queries_.screen_norm(q, m) * queries_.screen_norm(q, m) * unit * unit;
  }
  const double unit = items_.format() == Format::kInt8 ? largest / 127 : std::sqrt(squares) / kMaxNorm;
  return unit > 0 ? unit : 1;
}

void RoundedScreen::round_query(std::int64_t q, int klass, Packed& packed) const {
  const int n_modalities = items_.items().n_modalities();
  const auto at = static_cast<std::size_t>(q - packed.first) * static_cast<std::size_t>(items_.n_classes()) +
                  static_cast<std::size_t>(klass);
  const double unit = query_unit(q, klass);
  packed.units[at] = unit;

  RoundedRow rounded(items_.format(), items_.steps());
  for (int m = 0; m < n_modalities; ++m) {
    const auto& matrix = queries_.args().queries[static_cast<std::size_t>(m)];
    const double item_unit = items_.unit(klass, m);
    const auto norms = rounded.round(kernels_, matrix.row(q), queries_.scale(q, m) * item_unit, nullptr, unit,
                                     matrix.cols, items_.first_step(m));
    // Where the items are all zero nothing is lost.
    packed.lost_norms[at * static_cast<std::size_t>(n_modalities) + static_cast<std::size_t>(m)] =
        item_unit > 0 ? std::sqrt(norms.lost) / item_unit * kUp : 0.0;
  }
  std::int32_t sum = 0;
  for (const std::int8_t byte : rounded.bytes()) sum += byte;
  packed.offsets[at] = 128 * sum;

  const std::int64_t row = q - packed.first, panel = row / kMaxHeight * kMaxHeight;
  const int height = height_for(std::min<std::int64_t>(kMaxHeight, packed.last - packed.first - panel));
  std::int32_t* out =
      &packed.panels[static_cast<std::size_t>(klass)][static_cast<std::size_t>(panel * items_.steps() + row - panel)];
  std::vector<std::int32_t> words(static_cast<std::size_t>(items_.steps()));
  rounded.copy_words(words.data());
  for (const std::int32_t word : words) {
    *out = word;
    out += height;
  }
}

double RoundedScreen::bound(std::int64_t q, std::size_t tile, const RoundedItems::RoundedTile& rounded,
                            const Packed& packed) const {
  const int n_modalities = items_.items().n_modalities(), group = order().tiles[tile].group;
  const auto& present = items_.items().groups()[static_cast<std::size_t>(group)].present;
  const double* const lost =
      &packed.lost_norms[(static_cast<std::size_t>(q - packed.first) * static_cast<std::size_t>(items_.n_classes()) +
                          static_cast<std::size_t>(items_.class_of(tile))) *
                         static_cast<std::size_t>(n_modalities)];
  double sum = 0, size = 0;
  for (int m = 0; m < n_modalities; ++m) {
    if (!present[static_cast<std::size_t>(m)]) continue;
    const double kept_items = rounded.kept_norms[m], lost_items = rounded.lost_norms[m];
    const double norm = queries_.screen_norm(q, m);
    sum += lost[m] * kept_items + norm * lost_items;
    size += norm * (kept_items + lost_items + items_.centre_norm(m));
  }
  return queries_.factor(q, group) * (sum * kUp + size * kRounding) + 0x1p-126;
}

std::int32_t RoundedScreen::threshold(std::int64_t q, std::size_t tile, const Packed& packed, double bound,
                                      const Candidates& candidates) const {
  const int group = order().tiles[tile].group;
  const double factor = queries_.factor(q, group);
  if (factor == 0 || !queries_.scanned(q)) return std::numeric_limits<std::int32_t>::max();
  const auto row = static_cast<std::size_t>(q - packed.first);
  const auto at = row * static_cast<std::size_t>(items_.n_classes()) + static_cast<std::size_t>(items_.class_of(tile));
  const double constant = packed.constants[row * items_.items().groups().size() + static_cast<std::size_t>(group)];
  const double lowest = ((static_cast<double>(candidates.threshold(q)) - bound) / factor - constant) / packed.units[at];
  return round_threshold(lowest + packed.offsets[at]);
}

void RoundedScreen::scan_panel(std::size_t tile, std::int64_t begin, const std::int32_t* panel, std::int64_t query,
                               int height, const Packed& packed, Scratch& scratch, Candidates& candidates) const {
  std::array<std::int32_t, kMaxHeight * kPanelWidth> sums;
  std::array<std::int32_t, kMaxHeight * kPanelWidth> lanes;
  std::array<std::int32_t, kMaxHeight> counts;
  const Tile& t = order().tiles[tile];
  const auto klass = static_cast<std::size_t>(items_.class_of(tile));
  std::int32_t* const thresholds = &scratch.thresholds[static_cast<std::size_t>(query)];
  if (screen_(height, &packed.panels[klass][static_cast<std::size_t>(query * items_.steps())], panel, items_.steps(),
              thresholds, {sums.data(), lanes.data(), counts.data()}) == 0) {
    return;
  }
  const std::int64_t n_lanes = t.end - begin;
  const std::int64_t n_queries = std::min<std::int64_t>(height, packed.last - packed.first - query);
  for (std::int64_t r = 0; r < n_queries; ++r) {
    const std::int64_t q = packed.first + query + r;
    const auto row = static_cast<std::size_t>(query + r);
    const auto at = row * static_cast<std::size_t>(items_.n_classes()) + klass;
    const double factor = queries_.factor(q, t.group), bound = scratch.bounds[row];
    const double constant = packed.constants[row * items_.items().groups().size() + static_cast<std::size_t>(t.group)];
    for (int i = 0; i < counts[static_cast<std::size_t>(r)]; ++i) {
      const auto hit = static_cast<std::size_t>(r * kPanelWidth + i);
      // The threshold may have risen since the panel was screened; beyond the tile are the panel's zeros.
      if (lanes[hit] >= n_lanes || sums[hit] < thresholds[r]) continue;
      const double product = packed.units[at] * (sums[hit] - packed.offsets[at]) + constant;
      if (candidates.push(q, factor * product, bound, order().ids[static_cast<std::size_t>(begin + lanes[hit])])) {
        thresholds[r] = threshold(q, tile, packed, bound, candidates);
      }
    }
  }
}

void RoundedScreen::scan(std::size_t tile, const Packed& packed, Scratch& scratch, Candidates& candidates) const {
  const Tile& t = order().tiles[tile];
  const std::int64_t n = packed.last - packed.first;
  const RoundedItems::RoundedTile rounded = items_.tile(tile, scratch.tile);
  scratch.bounds.resize(static_cast<std::size_t>(n));
  scratch.thresholds.assign(static_cast<std::size_t>(n + kMaxHeight), std::numeric_limits<std::int32_t>::max());
  for (std::int64_t row = 0; row < n; ++row) {
    const auto at = static_cast<std::size_t>(row);
    candidates.catch_up(packed.first + row);
    scratch.bounds[at] = bound(packed.first + row, tile, rounded, packed);
    scratch.thresholds[at] = threshold(packed.first + row, tile, packed, scratch.bounds[at], candidates);
  }
  // The tile stays in L2 and a panel of queries in L1, beside the candidates that it finds.
  for (std::int64_t query = 0; query < n; query += kMaxHeight) {
    const int height = height_for(std::min<std::int64_t>(kMaxHeight, n - query));
    for (std::int64_t begin = t.begin; begin < t.end; begin += kPanelWidth) {
      const std::int32_t* const panel = rounded.panels + (begin - t.begin) * items_.steps();
      scan_panel(tile, begin, panel, query, height, packed, scratch, candidates);
    }
  }
}

}  // namespace recfuse
