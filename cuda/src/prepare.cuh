// From float32 vectors to what the screen multiplies, and to the numbers that bound its error.
//
// An item's vector of modality m, y (of length 1 for the cosine, times a power of two u_m), is kept as y = y~ + r in
// float16; the weighted query v (divided by u_m) as v = v~ / t + e with a power of two t per query. Then
//   | <v, y> - <v~, y~> / t |  <=  |e| |y~| + |v| |r|                       (Cauchy-Schwarz)
// per modality, and the sums of the matrix unit are off by at most n 2^-22 |v~| |y~| / t for n products, which covers
// that it truncates when it aligns. All norms are measured in float64 from the data and rounded up.
#pragma once

#include <cmath>
#include <cstdint>

#include "block.cuh"
#include "candidates.cuh"
#include "tile_image.cuh"
#include "vectors.cuh"

namespace recfuse::cuda {

constexpr double kAbove = 1 + 0x1p-40;   // covers the roundings of a norm in float64
constexpr double kRoundings = 0x1p-20;   // of score, ends of intervals and thresholds to float32, with room
constexpr double kUnderflow = 0x1p-120;  // of the same
constexpr double kMatrixUnit = 0x1p-22;  // per product, of the sum of their absolute values
constexpr int kLargestExponent = 13;     // elements are scaled to at most 2^14

/// A power of two that brings the largest element to [2^13, 2^14).
RECFUSE_BOTH double unit_for(double largest) {
  return largest > 0 ? std::ldexp(1.0, kLargestExponent - std::ilogb(largest)) : 1.0;
}

/// Norms of every item and modality.
struct MeasureItems {
  static constexpr int kThreads = 128;
  Items items;
  double* inverse_norms;    // (n, modalities)
  float* largest;           // (n, modalities): of the absolute values that the screen sees, before their unit
  std::int32_t* irregular;  // (n)

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread) {
      const std::int64_t row = static_cast<std::int64_t>(block.x()) * kThreads + thread;
      if (row >= items.n) return;
      const int n_modalities = items.matrices.n_modalities;
      const char* const present = items.present + static_cast<std::int64_t>(items.groups[row]) * n_modalities;
      irregular[row] = 0;
      for (int m = 0; m < n_modalities; ++m) {
        const std::int64_t at = row * n_modalities + m;
        inverse_norms[at] = 0;
        largest[at] = 0;
        if (present[m] == 0) continue;
        const float* const x = items.matrices.row(m, row);
        const double squared = canonical_dot(x, x, items.matrices.cols[m]);
        if (!in_screen_range(std::sqrt(squared))) irregular[row] = 1;  // NaN and infinity too
        inverse_norms[at] = inverse_norm(squared);
        float most = 0;
        for (std::int64_t j = 0; j < items.matrices.cols[m]; ++j) most = std::fmax(most, std::fabs(x[j]));
        largest[at] = items.cosine ? (squared > 0 ? 1.0F : 0.0F) : most;
      }
    });
  }
};

/// The image of a tile of items, and the norms that stand for all of it.
struct PackItems {
  static constexpr int kThreads = kTileItems;
  Items items;
  const std::int32_t* ids;  // by position; -1: none
  const double* units;      // (modalities): u_m
  int n_slabs;
  half_bits* image;
  double* tile_norms;  // (tiles, modalities, 2): the largest |y~| and |r|

  RECFUSE_BOTH static std::size_t shared_bytes(int n_modalities) {
    return sizeof(double) * 2 * kTileItems * static_cast<std::size_t>(n_modalities);
  }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const int n_modalities = items.matrices.n_modalities;
    const std::int64_t tile = block.x();
    auto* const norms = reinterpret_cast<double*>(block.shared());  // (rows, modalities, 2)
    block.each_thread([&](int row) {
      const std::int32_t id = ids[tile * kTileItems + row];
      const std::int64_t item = id < 0 ? 0 : items.row_of(id);
      std::int64_t column = 0;
      for (int m = 0; m < n_modalities; ++m) {
        const std::int64_t cols = items.matrices.cols[m], of_item = item * n_modalities + m;
        const bool used = id >= 0 && items.present[items.groups[item] * n_modalities + m] != 0;
        const double scale = used ? units[m] * (items.cosine ? items.inverse_norms[of_item] : 1.0) : 0.0;
        const float* const x = used ? items.matrices.row(m, item) : nullptr;
        double kept = 0, lost = 0;
        for (std::int64_t j = 0; j < cols; ++j, ++column) {
          const double y = used ? x[j] * scale : 0.0;
          const half_bits h = half_of(static_cast<float>(y));
          image[image_index(tile, kTileItems, n_slabs, row, column)] = h;
          const double rounded = float_of(h);
          kept += rounded * rounded;
          lost += (y - rounded) * (y - rounded);
        }
        for (; column % kColumns != 0; ++column) image[image_index(tile, kTileItems, n_slabs, row, column)] = 0;
        norms[(row * n_modalities + m) * 2] = std::sqrt(kept) * kAbove;
        norms[(row * n_modalities + m) * 2 + 1] = std::sqrt(lost) * kAbove;
      }
      for (; column < static_cast<std::int64_t>(n_slabs) * kSlab; ++column) {
        image[image_index(tile, kTileItems, n_slabs, row, column)] = 0;
      }
    });
    block.each_thread([&](int thread) {
      for (int i = thread; i < 2 * n_modalities; i += kThreads) {
        double most = 0;
        for (int row = 0; row < kTileItems; ++row) most = std::fmax(most, norms[row * n_modalities * 2 + i]);
        tile_norms[tile * n_modalities * 2 + i] = most;
      }
    });
  }
};

/// What a query brings to the bound: error <= sum over modalities of  kept[m] |y~| + lost[m] |r|, before its factor.
struct QueryBound {
  double kept, lost;
};

/// Norms and factors of a query; its image; what bounds its error.
struct PrepareQueries {
  static constexpr int kThreads = 128;
  Queries queries;
  Items items;
  const double* units;  // (modalities)
  double largest_item;  // at least the norm of any regular item's modality
  int tile_queries, n_slabs;
  double* inverse_norms;  // (n, modalities)
  double* factors;        // (n, groups)
  QueryBound* bounds;     // (n, modalities); null: no screen, nothing below is written either
  double* scales;         // (n): 1 / t, what a sum of the screen is worth; 0: not to be screened
  half_bits* image;
  Candidates candidates;  // none yet; one too many for a query that is not to be screened

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread) {
      const std::int64_t q = static_cast<std::int64_t>(block.x()) * kThreads + thread;
      if (q >= queries.n) return;
      const bool in_range = measure(q);
      if (bounds == nullptr) return;
      candidates.counts[q] = in_range ? 0 : candidates.capacity + 1;
      candidates.thresholds[q] = -INFINITY;
      round(q, in_range);
    });
  }

 private:
  /// Writes inverse norms and factors; whether the screen's bound holds for this query.
  RECFUSE_DEVICE bool measure(std::int64_t q) const {
    const int n_modalities = items.matrices.n_modalities;
    const double* const weights = queries.weights_of(q);
    bool good = true;
    double sum = 0;
    for (int m = 0; m < n_modalities; ++m) {
      const float* const x = queries.matrices.row(m, q);
      const double squared = canonical_dot(x, x, queries.matrices.cols[m]);
      const double inverse = items.cosine ? inverse_norm(squared) : 1.0;
      inverse_norms[q * n_modalities + m] = inverse;
      const double norm = std::fabs(weights[m]) * std::sqrt(squared) * inverse;
      good = good && in_screen_range(norm) && in_screen_range(inverse);
      sum += norm;
    }
    double largest_factor = 1;
    for (int g = 0; g < items.n_groups; ++g) {
      const double f = presence_factor(queries.rule.fusion, queries.rule.missing, weights,
                                       items.present + static_cast<std::int64_t>(g) * n_modalities, n_modalities);
      factors[q * items.n_groups + g] = f;
      good = good && in_screen_range(f);
      largest_factor = std::fmax(largest_factor, f);
    }
    return good && sum * largest_item * largest_factor <= 0x1p100;
  }

  RECFUSE_DEVICE double element(std::int64_t q, int m, std::int64_t j) const {
    const int n_modalities = items.matrices.n_modalities;
    return queries.matrices.row(m, q)[j] * (queries.weights_of(q)[m] * inverse_norms[q * n_modalities + m] / units[m]);
  }

  RECFUSE_DEVICE void round(std::int64_t q, bool in_range) const {
    const int n_modalities = items.matrices.n_modalities, row = static_cast<int>(q % tile_queries);
    const std::int64_t tile = q / tile_queries;
    const auto write = [&](std::int64_t column, half_bits h) {
      image[image_index(tile, tile_queries, n_slabs, row, column)] = h;
    };
    double largest = 0;
    for (int m = 0; in_range && m < n_modalities; ++m) {
      for (std::int64_t j = 0; j < queries.matrices.cols[m]; ++j) {
        largest = std::fmax(largest, std::fabs(element(q, m, j)));
      }
    }
    const double unit = unit_for(largest);
    scales[q] = in_range ? 1 / unit : 0;
    const double matrix_unit = kMatrixUnit * (n_slabs * kSlab);
    std::int64_t column = 0;
    for (int m = 0; m < n_modalities; ++m) {
      double kept = 0, lost = 0, all = 0;
      for (std::int64_t j = 0; j < queries.matrices.cols[m]; ++j, ++column) {
        const double v = in_range ? element(q, m, j) : 0.0;
        const half_bits h = half_of(static_cast<float>(v * unit));
        write(column, h);
        const double rounded = float_of(h) / unit;
        all += v * v;
        kept += rounded * rounded;
        lost += (v - rounded) * (v - rounded);
      }
      for (; column % kColumns != 0; ++column) write(column, 0);
      const double length = std::sqrt(all) * kAbove;
      bounds[q * n_modalities + m] = {
          std::sqrt(lost) * kAbove + matrix_unit * std::sqrt(kept) * kAbove + kRoundings * length,
          length * (1 + kRoundings)};
    }
    for (; column < static_cast<std::int64_t>(n_slabs) * kSlab; ++column) write(column, 0);
  }
};

}  // namespace recfuse::cuda
