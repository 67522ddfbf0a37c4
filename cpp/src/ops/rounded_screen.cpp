#include "ops/rounded_screen.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>

#include "isa/dispatch.hpp"

namespace recfuse {
namespace {

using kernels::kPanelHeights;
using kernels::kPanelWidth;

constexpr std::int64_t kManyDims = 256;  // from here on the bounds of int8 are wide against the spread of scores
constexpr std::size_t kManyTiles = 32;   // of which a few are a sample
constexpr int kMaxHeight = kPanelHeights[std::size(kPanelHeights) - 1];
constexpr double kFewAllowed = 0.25;  // of the items: what one query reads item by item
constexpr int kUnitsTried = 16;       // from one to its double
constexpr double kLargestLane = 32767 / kUp;
constexpr double kLargestSum = 0x1p30;  // of integers: thresholds and offsets need room too
// Relative to |v| |y|. In float32, half an ulp (2^-24) each: the score is rounded once, the screened value five times,
// the ends of its interval once. The rest is for what float64 rounds here and there.
constexpr double kRounding = 0x1p-20;

/// The first integer that is not surely too small.
std::int32_t round_threshold(double x) {
  constexpr std::int32_t kLowest = std::numeric_limits<std::int32_t>::min();
  constexpr std::int32_t kLargest = std::numeric_limits<std::int32_t>::max();
  const double down = std::floor(x - std::abs(x) * 0x1p-40) - 1;
  if (!(down > kLowest)) return kLowest;
  return down < kLargest ? static_cast<std::int32_t>(down) : kLargest;
}

}  // namespace

RoundedScreen::RoundedScreen(const Queries& queries, const RoundedItems& items, const Filters& filters,
                             std::span<const Nearest> nearest)
    : queries_(queries),
      items_(items),
      filters_(filters),
      kernels_(kernel_table()),
      screen_(items.format() == Format::kInt8 ? kernels_.screen_int8 : kernels_.screen_int16),
      nearest_(nearest) {
  if (filters.allowed == nullptr) return;
  mark_disallowed();
  const auto n_allowed = static_cast<double>(filters.allowed_ids.size());
  const bool few = n_allowed <= kFewAllowed * static_cast<double>(items.items().n_items());
  if (queries.size() == 1 && few) rows_ = items.rows();
}

int RoundedScreen::max_height() { return kMaxHeight; }

int RoundedScreen::panel_height(std::int64_t n_queries) {
  return *std::lower_bound(std::begin(kPanelHeights), std::end(kPanelHeights), n_queries);
}

int RoundedScreen::panel_queries() const { return kMaxHeight; }

/// The bounds of int8 are wide: several times k stay between them, and many more where many dimensions make scores
/// alike; those that there is no room for must be scored on the way.
std::int64_t RoundedScreen::candidates(std::int64_t k) const {
  if (items_.format() == Format::kInt16) return 2 * k + 64;
  // Where thresholds are known from the start, all that passes is looked at once, in the end.
  if (items_.neighbourhoods().any() && k <= kMostNearList) return 16 * k + 64;
  const std::int64_t times = items_.items().total_dim() < kManyDims ? 4 : std::clamp<std::int64_t>(3072 / k, 10, 24);
  return times * k + 64;
}

bool RoundedScreen::guesses() const {
  return items_.format() == Format::kInt8 && items_.items().total_dim() >= kManyDims && !items_.ordered_by_norm() &&
         order().tiles.size() >= kManyTiles;
}

RoundedScreen::Packed RoundedScreen::pack(std::int64_t first, std::int64_t last) const {
  const auto n = static_cast<std::size_t>(last - first), n_classes = static_cast<std::size_t>(items_.n_classes());
  const auto n_modalities = static_cast<std::size_t>(items_.items().n_modalities());
  const auto& groups = items_.items().groups();
  const std::int64_t whole = (last - first) / kMaxHeight * kMaxHeight, rest = last - first - whole;
  const std::int64_t rows = whole + (rest > 0 ? panel_height(rest) : 0);
  Packed packed;
  packed.first = first;
  packed.last = last;
  packed.units.resize(n * n_classes);
  packed.offsets.resize(n * n_classes);
  packed.lost_norms.resize(n * n_classes * n_modalities);
  packed.constants.resize(n * groups.size());
  packed.panels.resize(n_classes);
  packed.multipliers.resize(n_classes);
  measure_reach(packed);
  QueryUnits units;
  for (std::size_t klass = 0; klass < n_classes; ++klass) {
    packed.panels[klass].resize(static_cast<std::size_t>(rows * items_.query_words()));
    packed.multipliers[klass].resize(static_cast<std::size_t>(rows) * (n_modalities - 1));
    for (std::int64_t q = first; q < last; ++q) {
      if (queries_.scanned(q)) round_query(q, static_cast<int>(klass), units, packed);
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

/// The largest element of every segment needs its 127 units in int8, and a chunk of sums the norms that keep its lanes
/// within 16 bits; in int16 the whole query needs its norm.
void RoundedScreen::choose_units(std::int64_t q, int klass, QueryUnits& chosen) const {
  const auto& segments = items_.segments();
  const std::size_t n = segments.size();
  chosen.units.assign(n, 0.0);
  chosen.multiples.assign(n, 1);
  double squares = 0;
  for (std::size_t s = 0; s < n; ++s) {
    const int m = segments[s];
    const auto& matrix = queries_.args().queries[static_cast<std::size_t>(m)];
    const double unit = items_.unit(klass, m), norm = queries_.screen_norm(q, m) * unit;
    const double scale = queries_.scale(q, m) * unit;
    chosen.units[s] = kernels_.largest_element(matrix.row(q), scale, nullptr, matrix.cols) / 127;
    if (const double of_items = items_.lane_norm(klass, m); of_items > 0) {
      const double most = kLargestLane / of_items - rounded_lane();
      const double lane = kernels_.largest_lane(matrix.row(q), scale, nullptr, matrix.cols) * kUp;
      chosen.units[s] = std::max(chosen.units[s], lane / most);
    }
    squares += norm * norm;
  }
  if (items_.format() == Format::kInt16) {
    const double unit = std::sqrt(squares) / kMaxNorm;
    return std::fill(chosen.units.begin(), chosen.units.end(), unit > 0 ? unit : 1.0);
  }
  const std::vector<double> least = chosen.units;
  double smallest = std::numeric_limits<double>::infinity();
  for (const double unit : least) smallest = unit > 0 ? std::min(smallest, unit) : smallest;
  if (!(smallest < std::numeric_limits<double>::infinity())) smallest = 1;
  // Multiples leave units larger than they need to be; by how much depends on the last one.
  const auto choose_last = [&](double unit) {
    double largest_sum = 0, multiple = 1, lost = 0;
    for (std::size_t s = n; s-- > 0;) {
      const double step = std::max(1.0, std::ceil(least[s] / (unit * multiple)));
      multiple *= s + 1 < n ? step : 1;
      if (s + 1 < n) chosen.multiples[s] = static_cast<std::int32_t>(std::min(step, kLargestSum));
      chosen.units[s] = unit * multiple;
      const auto dims = static_cast<double>(4 * items_.segment_steps().steps[s]);
      lost += chosen.units[s] * dims;  // of which norms are unit times root, of the item, too
      largest_sum += multiple * dims * 255 * 127;
    }
    return largest_sum <= kLargestSum ? lost : std::numeric_limits<double>::infinity();
  };
  double unit = std::max(least.back(), smallest);
  double least_lost = choose_last(unit);
  while (!(least_lost < std::numeric_limits<double>::infinity())) least_lost = choose_last(unit *= 2);
  if (n == 1) return;
  double best = unit;
  for (int i = 1; i < kUnitsTried; ++i) {
    const double other = unit * std::exp2(static_cast<double>(i) / kUnitsTried), lost = choose_last(other);
    if (lost < least_lost) best = other;
    least_lost = std::min(least_lost, lost);
  }
  choose_last(best);
}

void RoundedScreen::round_query(std::int64_t q, int klass, QueryUnits& units, Packed& packed) const {
  const auto& segments = items_.segments();
  const auto k = static_cast<std::size_t>(klass);
  const std::size_t at = static_cast<std::size_t>(q - packed.first) * static_cast<std::size_t>(items_.n_classes()) + k;
  const std::int64_t row = q - packed.first, panel = row / kMaxHeight * kMaxHeight;
  const int height = panel_height(std::min<std::int64_t>(kMaxHeight, packed.last - packed.first - panel));
  choose_units(q, klass, units);
  packed.units[at] = units.units.back();

  RoundedRow rounded(items_.format(), items_.steps());
  std::int32_t* multiplier =
      packed.multipliers[k].data() + panel * static_cast<std::int64_t>(segments.size() - 1) + row - panel;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const int m = segments[s];
    const auto& matrix = queries_.args().queries[static_cast<std::size_t>(m)];
    const double item_unit = items_.unit(klass, m);
    const auto norms = rounded.round(kernels_, matrix.row(q), queries_.scale(q, m) * item_unit, nullptr, units.units[s],
                                     matrix.cols, items_.first_step(m));
    // Where the items are all zero nothing is lost.
    packed.lost_norms[at * segments.size() + static_cast<std::size_t>(m)] =
        item_unit > 0 ? std::sqrt(norms.lost) / item_unit * kUp : 0.0;
    if (s + 1 == segments.size()) break;
    *multiplier = units.multiples[s];
    multiplier += height;
  }
  packed.offsets[at] = items_.in_chunks() ? 0 : offset_of(rounded, units);

  std::int32_t* out = packed.panels[k].data() + panel * items_.query_words() + row - panel;
  std::vector<std::int32_t> words(static_cast<std::size_t>(items_.steps()));
  rounded.copy_words(words.data());
  const std::int32_t* word = words.data();
  for (std::size_t s = 0; s < segments.size(); ++s) {
    for (std::int64_t left = items_.segment_steps().steps[s]; left > 0; left -= items_.chunk_steps()) {
      const std::span steps(word, static_cast<std::size_t>(std::min(left, items_.chunk_steps())));
      word += steps.size();
      if (items_.in_chunks()) {
        *out = chunk_start(steps);
        out += height;
      }
      for (const std::int32_t step : steps) {
        *out = step;
        out += height;
      }
    }
  }
}

/// What was added to the items' bytes adds to the sum.
std::int32_t RoundedScreen::offset_of(const RoundedRow& rounded, const QueryUnits& units) const {
  std::int32_t offset = 0;
  const std::int8_t* byte = rounded.bytes().data();
  for (std::size_t s = 0; s < units.units.size() && !rounded.bytes().empty(); ++s) {
    if (s > 0) offset *= units.multiples[s - 1];
    for (std::int64_t j = 0; j < 4 * items_.segment_steps().steps[s]; ++j) offset += (items_.limit() + 1) * *byte++;
  }
  return offset;
}

/// The same, taken off beforehand, of the two lanes of a chunk, modulo 2^16.
std::int32_t RoundedScreen::chunk_start(std::span<const std::int32_t> words) const {
  std::int32_t sums[2] = {0, 0};
  for (const std::int32_t word : words) {
    for (int byte = 0; byte < 4; ++byte) sums[byte / 2] += static_cast<std::int8_t>(word >> 8 * byte);
  }
  const auto start = [&](std::int32_t sum) { return static_cast<std::uint16_t>(-(items_.limit() + 1) * sum); };
  return static_cast<std::int32_t>(start(sums[0]) | static_cast<std::uint32_t>(start(sums[1])) << 16);
}

std::size_t RoundedScreen::class_slot(std::int64_t q, std::size_t tile, const Packed& packed) const {
  return static_cast<std::size_t>(q - packed.first) * static_cast<std::size_t>(items_.n_classes()) +
         static_cast<std::size_t>(items_.class_of(tile));
}

double RoundedScreen::bound(std::int64_t q, std::size_t tile, const RoundedItems::RoundedTile& rounded,
                            const Packed& packed) const {
  const int n_modalities = items_.items().n_modalities(), group = order().tiles[tile].group;
  const auto& present = items_.items().groups()[static_cast<std::size_t>(group)].present;
  const double* const lost = &packed.lost_norms[class_slot(q, tile, packed) * static_cast<std::size_t>(n_modalities)];
  double sum = 0, size = 0;
  for (int m = 0; m < n_modalities; ++m) {
    if (!present[static_cast<std::size_t>(m)]) continue;
    const double kept_items = rounded.kept_norms[m], lost_items = rounded.lost_norms[m];
    const double norm = queries_.screen_norm(q, m);
    sum += lost[m] * kept_items + norm * lost_items;
    size += norm * (kept_items + lost_items + items_.centre_norm(m));
  }
  // The last term: slopes may be so small that float32 has no digits left for them.
  return queries_.factor(q, group) * (sum * kUp + size * kRounding) + 0x1p-110;
}

/// Of sums: the least with which an item may reach a score.
std::int32_t RoundedScreen::threshold(std::int64_t q, std::size_t tile, const Packed& packed, double bound,
                                      float score) const {
  const int group = order().tiles[tile].group;
  const double factor = queries_.factor(q, group);
  if (factor == 0) return std::numeric_limits<std::int32_t>::max();
  const std::size_t at = class_slot(q, tile, packed);
  const double lowest = ((static_cast<double>(score) - bound) / factor - constant(q, group, packed)) / packed.units[at];
  return round_threshold(lowest + packed.offsets[at]);
}

/// What the kernel needs to know of the queries of a block to scan a tile, but for thresholds.
void RoundedScreen::describe_queries(std::size_t tile, const RoundedItems::RoundedTile& rounded, const Packed& packed,
                                     Scratch& scratch) const {
  const int group = order().tiles[tile].group;
  const std::size_t n = scratch.rows.size();
  scratch.thresholds.assign(n + kMaxHeight, std::numeric_limits<std::int32_t>::max());
  scratch.offsets.resize(n + kMaxHeight);
  scratch.slopes.resize(n + kMaxHeight);
  scratch.intercepts.resize(n + kMaxHeight);
  scratch.bounds.resize(n + kMaxHeight);
  scratch.widths.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t q = packed.first + scratch.rows[i];
    const double factor = queries_.factor(q, group);
    const std::size_t at = class_slot(q, tile, packed);
    const double width = bound(q, tile, rounded, packed);
    scratch.widths[i] = width;
    scratch.bounds[i] = static_cast<float>(width * (1 + 0x1p-22));
    scratch.offsets[i] = packed.offsets[at];
    scratch.slopes[i] = static_cast<float>(factor * packed.units[at]);
    scratch.intercepts[i] = static_cast<float>(factor * constant(q, group, packed));
  }
}

void RoundedScreen::prepare_queries(std::size_t tile, const RoundedItems::RoundedTile& rounded, const Packed& packed,
                                    Scratch& scratch, const Candidates& candidates) const {
  describe_queries(tile, rounded, packed, scratch);
  for (std::size_t i = 0; i < scratch.rows.size(); ++i) {
    const std::int64_t q = packed.first + scratch.rows[i];
    scratch.thresholds[i] = threshold(q, tile, packed, scratch.widths[i], candidates.threshold(q));
  }
}

/// A bit for every item that no query may get.
void RoundedScreen::mark_disallowed() {
  disallowed_.assign(static_cast<std::size_t>(items_.n_panels()) + 1, ~0U);
  const auto& slots = items_.slots();
  for (const std::int32_t id : filters_.allowed_ids) {
    const std::uint32_t slot = slots[static_cast<std::size_t>(id)];
    disallowed_[slot / kPanelWidth] &= ~(1U << (slot % kPanelWidth));
  }
}

void RoundedScreen::scan(std::size_t tile, const Prepared& prepared, const Packed& packed, Scratch& scratch,
                         Candidates& candidates) const {
  const Tile& t = order().tiles[tile];
  const RoundedItems::RoundedTile& rounded = prepared.tile;
  choose_queries(tile, packed, scratch, candidates);
  if (scratch.rows.empty()) return;
  prepare_queries(tile, rounded, packed, scratch, candidates);
  const auto first_panel = static_cast<std::size_t>(items_.first_panel(tile));
  const std::uint32_t* const disallowed = filters_.allowed == nullptr ? nullptr : &disallowed_[first_panel];
  const bool excludes = filters_.exclude.given();
  if (excludes) scratch.refused.start(items_, filters_.exclude, packed.first, packed.last);
  const QueryWords of_queries = gather(tile, packed, scratch);
  const auto n = static_cast<std::int64_t>(scratch.rows.size()), steps = items_.steps();
  const std::int64_t query_words = items_.query_words();
  const kernels::Segments segments = items_.segment_steps();
  // The tile stays in L2 and a panel of queries in L1, beside the candidates that it finds.
  for (std::int64_t query = 0; query < n; query += kMaxHeight) {
    const int height = panel_height(std::min<std::int64_t>(kMaxHeight, n - query));
    const auto first = static_cast<std::size_t>(query);
    const kernels::RoundedQueries queries{of_queries.words + query * query_words,
                                          of_queries.multipliers + query * (segments.n - 1),
                                          &scratch.thresholds[first],
                                          &scratch.offsets[first],
                                          &scratch.slopes[first],
                                          &scratch.intercepts[first],
                                          &scratch.bounds[first]};
    const kernels::CandidateLists lists = candidates.lists(&scratch.rows[first]);
    const std::int64_t end = std::min(t.end, t.begin + scratch.ends[first] * kPanelWidth);
    const std::span rows(&scratch.rows[first], static_cast<std::size_t>(std::min<std::int64_t>(kMaxHeight, n - query)));
    const std::uint32_t* const refused = excludes ? scratch.refused.mark(items_, tile, disallowed, rows) : disallowed;
    if (rows_ != nullptr) return scan_rows(tile, packed, queries.words, refused, scratch, candidates);
    const std::size_t n_words = excludes ? rows.size() : 1;  // a panel
    for (std::int64_t begin = t.begin; begin < end; begin += kPanelWidth) {
      const auto panel = static_cast<std::size_t>((begin - t.begin) / kPanelWidth);
      if (disallowed != nullptr && disallowed[panel] == ~0U) continue;  // lists often name neighbours
      const kernels::RoundedPanel items{rounded.panels + (begin - t.begin) * steps,
                                        &order().ids[static_cast<std::size_t>(begin)],
                                        static_cast<int>(std::min<std::int64_t>(kPanelWidth, end - begin)),
                                        refused == nullptr ? nullptr : refused + panel * n_words, excludes ? 1 : 0};
      for (unsigned grown = screen_(height, queries, items, segments, lists); grown != 0; grown &= grown - 1) {
        const std::size_t i = first + static_cast<std::size_t>(__builtin_ctz(grown));
        const std::int64_t q = packed.first + scratch.rows[i];
        if (!candidates.make_room(q)) continue;
        scratch.thresholds[i] = threshold(q, tile, packed, scratch.bounds[i], candidates.threshold(q));
      }
    }
  }
}

/// For a single query: reads the items of the tile that it may get, one by one.
void RoundedScreen::scan_rows(std::size_t tile, const Packed& packed, const std::int32_t* query,
                              const std::uint32_t* refused, Scratch& scratch, Candidates& candidates) const {
  const std::int64_t words = items_.row_words(), q = packed.first;
  scratch.query.assign(static_cast<std::size_t>(words), 0);
  const std::int64_t chunk = items_.chunk_steps();
  for (std::int64_t step = 0; step < items_.steps(); step += chunk) {
    query += items_.in_chunks() ? 1 : 0;  // the start
    const std::int64_t n_words = std::min(chunk, items_.steps() - step);
    std::copy_n(query, n_words, scratch.query.begin() + step);
    query += n_words;
  }
  scratch.places.clear();
  for (std::int32_t panel = 0; panel < scratch.ends[0]; ++panel) {
    for (std::uint32_t left = ~refused[panel]; left != 0; left &= left - 1) {
      scratch.places.push_back(static_cast<std::uint32_t>(panel * kPanelWidth + std::countr_zero(left)));
    }
  }
  const auto n = static_cast<std::int64_t>(scratch.places.size());
  scratch.sums.resize(scratch.places.size());
  kernels_.dot_rows_int8(scratch.query.data(), rows_ + items_.first_panel(tile) * kPanelWidth * words, words,
                         scratch.places.data(), n, words, scratch.sums.data());
  const std::int32_t* const ids = &order().ids[static_cast<std::size_t>(order().tiles[tile].begin)];
  for (std::size_t i = 0; i < scratch.sums.size(); ++i) {
    if (scratch.sums[i] < scratch.thresholds[0]) continue;
    const auto sum = static_cast<double>(scratch.sums[i] - scratch.offsets[0]);
    const double value = sum * static_cast<double>(scratch.slopes[0]) + static_cast<double>(scratch.intercepts[0]);
    if (candidates.push(q, value, scratch.bounds[0], ids[scratch.places[i]])) {
      scratch.thresholds[0] = threshold(q, tile, packed, scratch.bounds[0], candidates.threshold(q));
    }
  }
}

}  // namespace recfuse
