#include "ops/neighbourhoods.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "isa/dispatch.hpp"
#include "parallel_for.hpp"

namespace recfuse {
namespace {

constexpr auto kCentres = static_cast<std::int64_t>(Neighbourhoods::n_centres());
constexpr std::int64_t kSample = 4096;  // items that the centres are found by
constexpr int kRounds = 3;
// Fewer items are not worth it; of more, what is looked at before thresholds are high is a small part.
constexpr std::int64_t kLeastItems = 4096, kMostItems = 1 << 17;
// From here on thresholds are guessed from samples of the tiles, which neighbours in one tile would mislead.
constexpr std::int64_t kMostDims = 256;
constexpr std::int64_t kRowsPerChunk = 1024;
// Mean squared cosine between items and their centres: 0.1 where vectors of 64 dimensions point everywhere.
constexpr double kLeastClose = 0.25;

/// The products of a vector with all centres.
std::array<float, kCentres> products(std::span<const float> centres, const float* x, std::int64_t dim) {
  std::array<float, kCentres> out;
  kernel_table().score_rows(x, centres.data(), dim, nullptr, kCentres, dim, out.data());
  return out;
}

std::uint8_t nearest(std::span<const float> centres, const float* x, std::int64_t dim) {
  const auto found = products(centres, x, dim);
  return static_cast<std::uint8_t>(std::max_element(found.begin(), found.end()) - found.begin());
}

/// Every centre becomes the direction of those that are nearest to it; one that has none stays.
void move_centres(std::span<const float> rows, std::span<const std::uint8_t> of_row, std::int64_t dim,
                  std::vector<float>& centres) {
  std::vector<double> sums(centres.size(), 0.0);
  const auto width = static_cast<std::size_t>(dim);
  for (std::size_t i = 0; i < of_row.size(); ++i) {
    for (std::size_t j = 0; j < width; ++j) sums[of_row[i] * width + j] += rows[i * width + j];
  }
  for (std::size_t c = 0; c < kCentres; ++c) {
    double squared = 0;
    for (std::size_t j = 0; j < width; ++j) squared += sums[c * width + j] * sums[c * width + j];
    if (!(squared > 0)) continue;
    for (std::size_t j = 0; j < width; ++j) {
      centres[c * width + j] = static_cast<float>(sums[c * width + j] / std::sqrt(squared));
    }
  }
}

}  // namespace

Neighbourhoods find_neighbourhoods(const FusedItems& items) {
  Neighbourhoods found;
  const std::int64_t n = items.n_items(), dim = items.total_dim();
  if (!items.cosine() || items.n_modalities() > 1 || items.groups().size() > 1 || dim >= kMostDims || n < kLeastItems ||
      n > kMostItems)
    return found;
  const auto width = static_cast<std::size_t>(dim);
  std::vector<float> rows;
  for (std::int64_t i = 0; i < n; i += n / kSample) {
    const auto id = static_cast<std::int32_t>(i);
    if (items.irregular(id)) continue;
    const double scale = items.inverse_norm_of(id, 0);
    for (std::int64_t j = 0; j < dim; ++j) rows.push_back(static_cast<float>(items.matrix(0).row(i)[j] * scale));
  }
  const auto n_rows = static_cast<std::int64_t>(rows.size() / width);
  if (n_rows < kCentres) return found;
  found.centres.resize(kCentres * width);
  for (std::size_t c = 0; c < kCentres; ++c) {
    const std::size_t row = c * static_cast<std::size_t>(n_rows) / kCentres;
    std::copy_n(&rows[row * width], width, &found.centres[c * width]);
  }
  std::vector<std::uint8_t> of_row(static_cast<std::size_t>(n_rows));
  std::vector<float> close(of_row.size());
  for (int round = 0; round < kRounds; ++round) {
    parallel_for((n_rows + kRowsPerChunk - 1) / kRowsPerChunk, items.args().num_threads, [&](std::int64_t chunk, int) {
      const std::int64_t end = std::min(n_rows, (chunk + 1) * kRowsPerChunk);
      for (std::int64_t i = chunk * kRowsPerChunk; i < end; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const auto all = products(found.centres, &rows[at * width], dim);
        const auto best = std::max_element(all.begin(), all.end());
        of_row[at] = static_cast<std::uint8_t>(best - all.begin());
        close[at] = *best;
      }
    });
    move_centres(rows, of_row, dim, found.centres);
  }
  double squares = 0;
  for (const float c : close) squares += static_cast<double>(c) * static_cast<double>(c);
  if (!(squares >= kLeastClose * static_cast<double>(n_rows))) return found;

  found.of_item.assign(static_cast<std::size_t>(n), 0);
  parallel_for((n + kRowsPerChunk - 1) / kRowsPerChunk, items.args().num_threads, [&](std::int64_t chunk, int) {
    const std::int64_t end = std::min(n, (chunk + 1) * kRowsPerChunk);
    for (std::int64_t i = chunk * kRowsPerChunk; i < end; ++i) {
      if (items.irregular(static_cast<std::int32_t>(i))) continue;
      found.of_item[static_cast<std::size_t>(i)] = nearest(found.centres, items.matrix(0).row(i), dim);
    }
  });
  return found;
}

void sort_by_neighbourhood(const Neighbourhoods& neighbourhoods, std::span<std::int32_t> ids) {
  std::stable_sort(ids.begin(), ids.end(), [&](std::int32_t a, std::int32_t b) {
    return neighbourhoods.of_item[static_cast<std::size_t>(a)] < neighbourhoods.of_item[static_cast<std::size_t>(b)];
  });
}

}  // namespace recfuse
