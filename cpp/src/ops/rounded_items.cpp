#include "ops/rounded_items.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "isa/dispatch.hpp"
#include "parallel_for.hpp"

namespace recfuse {
namespace {

using kernels::kPanelWidth;

constexpr std::int64_t kRowsPerChunk = 1024;
constexpr std::int64_t kSample = 4096;          // items that choose centres and typical sizes
constexpr double kCentreShare = 0.1;            // of the mean squared norm: from here on a centre pays
constexpr std::int64_t kTileBytes = 256 << 10;  // a quarter of an L2
constexpr std::int64_t kFirstTile = 256;        // items, where the largest come first
// Sums of bytes, at most 255 x 127 each, leave half of 32 bits for what a threshold adds.
constexpr std::int64_t kMaxDims = (std::int64_t{1} << 30) / (255 * 127);
constexpr double kShares[] = {0.5, 0.9, 0.99, 0.999, 0.9999};  // of the items, by size: where classes may begin
constexpr double kLeastRatio = 1.1;                            // between the units of neighbouring classes
constexpr std::int64_t kLeastLargeItems = 64;  // in a class, where only large items are looked at, times the groups
constexpr std::int64_t kLeastItems = 1024;     // in a class, times the groups that it cuts

std::int64_t words_of(const FusedItems& items, int m, Format format) {
  return (items.matrix(m).cols + per_word(format) - 1) / per_word(format);
}

/// Adds a number below 256 to each of four bytes, without a carry from one to the next.
std::int32_t add_to_bytes(std::int32_t word, int x) {
  const auto bytes = static_cast<std::uint32_t>(word), added = 0x01010101U * static_cast<std::uint32_t>(x);
  constexpr std::uint32_t kLow = 0x7F7F7F7FU;
  return static_cast<std::int32_t>(((bytes & kLow) + (added & kLow)) ^ ((bytes ^ added) & ~kLow));
}

std::vector<std::int32_t> sample_of(const FusedItems& items) {
  std::vector<std::int32_t> ids;
  const std::int64_t stride = std::max<std::int64_t>(1, items.n_items() / kSample);
  for (std::int64_t i = 0; i < items.n_items(); i += stride) {
    if (!items.irregular(static_cast<std::int32_t>(i))) ids.push_back(static_cast<std::int32_t>(i));
  }
  return ids;
}

}  // namespace

bool RoundedItems::fits(const FusedItems& items) {
  std::int64_t dims = 0;
  for (int m = 0; m < items.n_modalities(); ++m) dims += 4 * words_of(items, m, Format::kInt8);
  return dims <= kMaxDims;
}

RoundedItems::RoundedItems(const FusedItems& items, Format format, bool kept, const NormOrder& by_norm,
                           Neighbourhoods near)
    : items_(items),
      format_(format),
      limit_(kernel_table().item_limit),
      chunk_steps_(format == Format::kInt8 ? kernel_table().chunk_steps : 0),
      centres_(static_cast<std::size_t>(items.n_modalities())),
      centre_norms_(static_cast<std::size_t>(items.n_modalities()), 0.0),
      near_(std::move(near)) {
  for (int m = 0; m < items.n_modalities(); ++m) steps_ += words_of(items, m, format);
  find_centres();
  std::vector<char> class_of_item;
  choose_classes(class_of_item, by_norm.pays ? kLeastLargeItems : kLeastItems);
  order_segments();
  order_items(class_of_item, by_norm);
  if (by_norm.pays) measure_panels();
  if (near_.any()) find_near_panels();

  if (!kept) return;
  const std::size_t n_tiles = order_.tiles.size(), per_tile = 2 * static_cast<std::size_t>(items.n_modalities());
  std::size_t size = 0;
  for (std::size_t tile = 0; tile < n_tiles; ++tile) {
    offsets_.push_back(size);
    size += tile_words(tile);
  }
  words_.resize(size);
  norms_.resize(n_tiles * per_tile);
  parallel_for(static_cast<std::int64_t>(n_tiles), items.args().num_threads, [&](std::int64_t i, int) {
    const auto tile = static_cast<std::size_t>(i);
    AlignedVector<std::int32_t> rows;
    round_tile(tile, &words_[offsets_[tile]], &norms_[tile * per_tile], rows);
  });
}

std::size_t RoundedItems::tile_words(std::size_t tile) const {
  const std::int64_t n = order_.tiles[tile].end - order_.tiles[tile].begin;
  return static_cast<std::size_t>((n + kPanelWidth - 1) / kPanelWidth * kPanelWidth * steps_);
}

RoundedItems::RoundedTile RoundedItems::tile(std::size_t tile, Scratch& scratch) const {
  const auto n_modalities = static_cast<std::size_t>(items_.n_modalities());
  if (kept()) {
    const double* const norms = &norms_[tile * 2 * n_modalities];
    return {&words_[offsets_[tile]], norms, norms + n_modalities};
  }
  scratch.words.resize(tile_words(tile));
  scratch.norms.resize(2 * n_modalities);
  round_tile(tile, scratch.words.data(), scratch.norms.data(), scratch.rows);
  return {scratch.words.data(), scratch.norms.data(), scratch.norms.data() + n_modalities};
}

const double* RoundedItems::centre(int m) const {
  const auto& centre = centres_[static_cast<std::size_t>(m)];
  return centre.empty() ? nullptr : centre.data();
}

double RoundedItems::scale(std::int32_t id, int m) const {
  return items_.cosine() ? items_.inverse_norm_of(id, m) : 1.0;
}

bool RoundedItems::present(std::int32_t id, int m) const {
  return items_.groups()[static_cast<std::size_t>(items_.group_of(id))].present[static_cast<std::size_t>(m)] != 0;
}

/// Scores of all items move by one number when their centre does, so a centre costs nothing and shortens what is
/// rounded: much for vectors that are all positive, nothing for such that point everywhere.
void RoundedItems::find_centres() {
  const auto sample = sample_of(items_);
  for (int m = 0; m < items_.n_modalities(); ++m) {
    const auto& matrix = items_.matrix(m);
    std::vector<double> mean(static_cast<std::size_t>(matrix.cols), 0.0);
    double squares = 0, n = 0;
    for (const std::int32_t id : sample) {
      if (!present(id, m)) continue;
      const double s = scale(id, m);
      for (std::int64_t j = 0; j < matrix.cols; ++j) {
        const double y = matrix.row(id)[j] * s;
        mean[static_cast<std::size_t>(j)] += y;
        squares += y * y;
      }
      n += 1;
    }
    if (n == 0) continue;
    double squared = 0;
    for (double& x : mean) {
      x /= n;
      squared += x * x;
    }
    if (!(squared > kCentreShare * squares / n)) continue;
    centres_[static_cast<std::size_t>(m)] = std::move(mean);
    centre_norms_[static_cast<std::size_t>(m)] = std::sqrt(squared) * kUp;
    centred_ = true;
  }
}

/// What a unit must be chosen for: the largest element where elements are limited, the norm where sums are.
double RoundedItems::size_of(std::int32_t id, int m, RoundedRow& row) const {
  const auto& matrix = items_.matrix(m);
  const auto& kernels = kernel_table();
  if (format_ == Format::kInt8) {
    return kernels.largest_element(matrix.row(id), scale(id, m), centre(m), matrix.cols);
  }
  return std::sqrt(row.round(kernels, matrix.row(id), scale(id, m), centre(m), 0, matrix.cols, 0).lost);
}

void RoundedItems::choose_classes(std::vector<char>& class_of_item, std::int64_t least_items) {
  const auto n_items = static_cast<std::size_t>(items_.n_items());
  const int n_modalities = items_.n_modalities();
  std::vector<float> largest(n_items * static_cast<std::size_t>(n_modalities), 0.0F);
  std::vector<float> lanes(in_chunks() ? largest.size() : 0, 0.0F);
  const std::int64_t n_chunks = (items_.n_items() + kRowsPerChunk - 1) / kRowsPerChunk;
  parallel_for(n_chunks, items_.args().num_threads, [&](std::int64_t chunk, int) {
    const std::int64_t end = std::min(items_.n_items(), (chunk + 1) * kRowsPerChunk);
    RoundedRow row(format_, steps_);
    for (auto id = static_cast<std::int32_t>(chunk * kRowsPerChunk); id < end; ++id) {
      for (int m = 0; m < n_modalities; ++m) {
        if (items_.irregular(id) || !present(id, m)) continue;
        const std::size_t at = slot(static_cast<std::size_t>(id), m);
        largest[at] = static_cast<float>(size_of(id, m, row));
        if (lanes.empty()) continue;
        const auto& matrix = items_.matrix(m);
        const double lane = kernel_table().largest_lane(matrix.row(id), scale(id, m), centre(m), matrix.cols);
        lanes[at] = static_cast<float>(lane * (1 + 0x1p-22));
      }
    }
  });

  std::vector<double> typical(static_cast<std::size_t>(n_modalities), 1.0);
  const auto sample = sample_of(items_);
  for (int m = 0; m < n_modalities; ++m) {
    std::vector<float> sampled;
    for (const std::int32_t id : sample) {
      if (largest[slot(static_cast<std::size_t>(id), m)] > 0) {
        sampled.push_back(largest[slot(static_cast<std::size_t>(id), m)]);
      }
    }
    if (sampled.empty()) continue;
    const auto middle = sampled.begin() + static_cast<std::ptrdiff_t>(sampled.size() / 2);
    std::nth_element(sampled.begin(), middle, sampled.end());
    typical[static_cast<std::size_t>(m)] = *middle;
  }
  std::vector<float> sizes(n_items, 0.0F);
  for (std::size_t i = 0; i < n_items; ++i) {
    for (int m = 0; m < n_modalities; ++m) {
      sizes[i] = std::max(sizes[i], static_cast<float>(largest[slot(i, m)] / typical[static_cast<std::size_t>(m)]));
    }
  }

  // Class c holds what is larger than limits[c]; the last one holds the rest.
  std::vector<float> limits;
  std::vector<float> sorted = sizes;
  std::sort(sorted.begin(), sorted.end());
  const auto least = static_cast<double>(least_items * static_cast<std::int64_t>(items_.groups().size()));
  double above = sorted.empty() ? 0.0 : static_cast<double>(sorted.back());
  for (std::size_t i = std::size(kShares); i-- > 0;) {
    if (static_cast<double>(n_items) * (1 - kShares[i]) < least) continue;
    const float limit = sorted[static_cast<std::size_t>(kShares[i] * static_cast<double>(n_items))];
    if (static_cast<double>(limit) * kLeastRatio > above) continue;
    limits.push_back(limit);
    above = static_cast<double>(limit);
  }
  n_classes_ = static_cast<int>(limits.size()) + 1;
  const double in_units = format_ == Format::kInt8 ? limit_ : kMaxNorm / std::sqrt(n_modalities);
  units_.assign(static_cast<std::size_t>(n_classes_ * n_modalities), 0.0);
  class_of_item.assign(n_items, 0);
  for (std::size_t i = 0; i < n_items; ++i) {
    const auto klass = static_cast<std::size_t>(
        std::find_if(limits.begin(), limits.end(), [&](float limit) { return sizes[i] > limit; }) - limits.begin());
    class_of_item[i] = static_cast<char>(klass);
    for (int m = 0; m < n_modalities; ++m) {
      double& unit = units_[slot(klass, m)];
      unit = std::max(unit, static_cast<double>(largest[slot(i, m)]) / in_units);
    }
  }
  if (!lanes.empty()) measure_lanes(class_of_item, lanes);
}

/// In units of the classes. Rounding may add half a unit to every element.
void RoundedItems::measure_lanes(std::span<const char> class_of_item, std::span<const float> lanes) {
  lane_norms_.assign(units_.size(), 0.0);
  for (std::size_t i = 0; i < class_of_item.size(); ++i) {
    for (int m = 0; m < items_.n_modalities(); ++m) {
      double& norm = lane_norms_[slot(static_cast<std::size_t>(class_of_item[i]), m)];
      norm = std::max(norm, static_cast<double>(lanes[slot(i, m)]));
    }
  }
  for (std::size_t i = 0; i < units_.size(); ++i) {
    lane_norms_[i] = units_[i] > 0 ? lane_norms_[i] / units_[i] * kUp + rounded_lane() : 0.0;
  }
}

/// A sum of products can become one of smaller units, by a multiplication, but not of larger ones.
void RoundedItems::order_segments() {
  segments_.resize(static_cast<std::size_t>(items_.n_modalities()));
  std::iota(segments_.begin(), segments_.end(), 0);
  std::stable_sort(segments_.begin(), segments_.end(), [&](int a, int b) { return unit(0, a) > unit(0, b); });
  first_steps_.resize(segments_.size());
  std::int64_t step = 0;
  for (const int m : segments_) {
    first_steps_[static_cast<std::size_t>(m)] = step;
    segment_steps_.push_back(words_of(items_, m, format_));
    step += segment_steps_.back();
    query_words_ += segment_steps_.back();
    if (in_chunks()) query_words_ += (segment_steps_.back() + chunk_steps_ - 1) / chunk_steps_;
  }
}

void RoundedItems::order_items(const std::vector<char>& class_of_item, const NormOrder& by_norm) {
  const std::size_t n_groups = items_.groups().size();
  std::vector<std::vector<std::int32_t>> runs(n_groups * static_cast<std::size_t>(n_classes_));
  for (std::int32_t id = 0; id < items_.n_items(); ++id) {
    if (items_.irregular(id)) {
      order_.irregular_ids.push_back(id);
      continue;
    }
    const auto klass = static_cast<std::size_t>(class_of_item[static_cast<std::size_t>(id)]);
    runs[klass * n_groups + static_cast<std::size_t>(items_.group_of(id))].push_back(id);
  }
  const std::int64_t tile_items = std::clamp<std::int64_t>(kTileBytes / (4 * steps_) / 64 * 64, 64, 4096);
  for (std::size_t run = 0; run < runs.size(); ++run) {
    if (by_norm.pays) {
      sort_by_size(items_, by_norm, runs[run]);
    } else if (near_.any()) {
      sort_by_neighbourhood(near_, runs[run]);
    }
    const auto start = static_cast<std::int64_t>(order_.ids.size());
    order_.ids.insert(order_.ids.end(), runs[run].begin(), runs[run].end());
    const auto stop = static_cast<std::int64_t>(order_.ids.size());
    for (std::int64_t begin = start; begin < stop; begin = order_.tiles.back().end) {
      // Small ones first: what thresholds are after a tile decides how far queries go in the next one.
      const std::int64_t most = by_norm.pays ? std::clamp(begin / 64 * 64, kFirstTile, tile_items) : tile_items;
      order_.tiles.push_back({begin, std::min(begin + most, stop), static_cast<int>(run % n_groups)});
      classes_.push_back(static_cast<int>(run / n_groups));
      for (int m = 0; m < items_.n_modalities(); ++m) {
        float norm = 0;
        for (std::int64_t i = begin; i < order_.tiles.back().end; ++i) {
          norm = std::max(norm, items_.screen_norm(order_.ids[static_cast<std::size_t>(i)], m));
        }
        order_.tile_norms.push_back(norm);
      }
    }
  }
  first_panels_.push_back(0);
  for (const Tile& tile : order_.tiles) {
    first_panels_.push_back(first_panels_.back() + (tile.end - tile.begin + kPanelWidth - 1) / kPanelWidth);
  }
}

void RoundedItems::measure_panels() {
  const auto n_modalities = static_cast<std::size_t>(items_.n_modalities());
  panel_norms_.resize(static_cast<std::size_t>(n_panels()) * n_modalities);
  for (std::size_t t = 0; t < order_.tiles.size(); ++t) {
    const Tile& tile = order_.tiles[t];
    for (std::size_t m = 0; m < n_modalities; ++m) {
      float norm = 0;
      for (std::int64_t i = tile.end - 1; i >= tile.begin; --i) {
        norm = std::max(norm, items_.screen_norm(order_.ids[static_cast<std::size_t>(i)], static_cast<int>(m)));
        const auto panel = static_cast<std::size_t>(first_panel(t) + (i - tile.begin) / kPanelWidth);
        panel_norms_[panel * n_modalities + m] = norm;
      }
    }
  }
}

void RoundedItems::find_slots() const {
  slots_.assign(static_cast<std::size_t>(items_.n_items()), static_cast<std::uint32_t>(n_panels() * kPanelWidth));
  for (std::size_t tile = 0; tile < order_.tiles.size(); ++tile) {
    const Tile& t = order_.tiles[tile];
    const auto first = static_cast<std::uint32_t>(first_panel(tile) * kPanelWidth);
    for (std::int64_t at = t.begin; at < t.end; ++at) {
      const auto id = static_cast<std::size_t>(order_.ids[static_cast<std::size_t>(at)]);
      slots_[id] = first + static_cast<std::uint32_t>(at - t.begin);
    }
  }
}

const std::vector<std::uint32_t>& RoundedItems::slots() const {
  std::call_once(slots_made_, [&] { find_slots(); });
  return slots_;
}

void RoundedItems::keep_rows() const {
  std::call_once(rows_once_, [&] {
    rows_.resize(static_cast<std::size_t>(n_panels() * kPanelWidth * row_words()));  // zeros
    parallel_for(static_cast<std::int64_t>(order_.tiles.size()), items_.args().num_threads, [&](std::int64_t i, int) {
      const auto tile = static_cast<std::size_t>(i);
      const std::int32_t* word = &words_[offsets_[tile]];
      for (std::int64_t panel = first_panel(tile); panel < first_panel(tile + 1); ++panel) {
        std::int32_t* const rows = &rows_[static_cast<std::size_t>(panel * kPanelWidth * row_words())];
        for (std::int64_t step = 0; step < steps_; ++step) {
          for (std::int64_t r = 0; r < kPanelWidth; ++r) rows[r * row_words() + step] = *word++;
        }
      }
    });
    rows_made_.store(rows_.data(), std::memory_order_release);
  });
}

void RoundedItems::round_tile(std::size_t tile, std::int32_t* words, double* norms,
                              AlignedVector<std::int32_t>& rows) const {
  const Tile& t = order_.tiles[tile];
  const auto& kernels = kernel_table();
  const int n_modalities = items_.n_modalities();
  std::fill_n(norms, 2 * n_modalities, 0.0);
  RoundedRow row(format_, steps_);
  rows.resize(static_cast<std::size_t>(kPanelWidth * steps_));
  for (std::int64_t begin = t.begin; begin < t.end; begin += kPanelWidth) {
    for (std::int64_t r = 0; r < kPanelWidth; ++r) {
      row.clear();
      if (begin + r < t.end) {
        const std::int32_t id = order_.ids[static_cast<std::size_t>(begin + r)];
        for (int m = 0; m < n_modalities; ++m) {
          if (!present(id, m)) continue;
          const auto& matrix = items_.matrix(m);
          const auto rounded = row.round(kernels, matrix.row(id), scale(id, m), centre(m), unit(classes_[tile], m),
                                         matrix.cols, first_step(m));
          norms[m] = std::max(norms[m], std::sqrt(rounded.kept) * kUp);
          norms[n_modalities + m] = std::max(norms[n_modalities + m], std::sqrt(rounded.lost) * kUp);
        }
      }
      row.copy_words(&rows[static_cast<std::size_t>(r * steps_)]);
    }
    for (std::int64_t step = 0; step < steps_; ++step) {
      for (std::int64_t r = 0; r < kPanelWidth; ++r) {
        const std::int32_t word = rows[static_cast<std::size_t>(r * steps_ + step)];
        *words++ = format_ == Format::kInt8 ? add_to_bytes(word, limit_ + 1) : word;
      }
    }
  }
}

}  // namespace recfuse
