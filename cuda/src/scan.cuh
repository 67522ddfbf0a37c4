// What decides whether an item may rank: the same for every kernel that scans, however it multiplies.
#pragma once

#include <cmath>
#include <cstdint>

#include "candidates.cuh"
#include "prepare.cuh"
#include "tile_image.cuh"
#include "vectors.cuh"

namespace recfuse::cuda {

/// What a scan needs to know of a tile and its items.
struct Tiles {
  const half_bits* image;
  const std::int32_t* ids;     // by position; -1: none
  const std::int32_t* groups;  // (tiles): all items of a tile have the same modalities
  const double* norms;         // (tiles, modalities, 2): PackItems
  const char* present;         // (groups, modalities)
  int n_slabs, n_modalities, n_groups;
};

struct ScreenedQueries {
  const half_bits* image;
  const QueryBound* bounds;  // (n, modalities)
  const double* scales;      // (n)
  const double* factors;     // (n, groups)
  std::int64_t n;
};

/// 1 / x of an x that is neither tiny nor huge, but for the last bits: kRoundings covers them. Division proper has rare
/// cases that a kernel would have to call a function for.
RECFUSE_DEVICE double reciprocal(double x) {
#if defined(__CUDA_ARCH__)
  double r;  // right to 20 bits, which every step doubles
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(r) : "d"(x));
  r = __fma_rn(__fma_rn(-x, r, 1.0), r, r);
  return __fma_rn(__fma_rn(-x, r, 1.0), r, r);
#else
  return 1 / x;
#endif
}

/// Of a query and a tile: what a sum is worth, and how far that may be off.
struct Worth {
  double scale;  // 0: the query is not ranked, or not screened
  double bound;
};

struct Scan {
  Tiles tiles;
  ScreenedQueries queries;
  Candidates candidates;
  Filters filters;

  RECFUSE_DEVICE Worth worth(std::int64_t q, std::int64_t tile) const {
    if (q >= queries.n) return {0, 0};
    const int group = tiles.groups[tile];
    const double scale = queries.scales[q] * queries.factors[q * tiles.n_groups + group];
    return {scale, scale == 0 ? 0 : bound_of(q, tile, group)};
  }

  /// From this sum on an item of the tile may rank.
  RECFUSE_DEVICE float least_sum(std::int64_t q, const Worth& worth) const {
    if (worth.scale == 0) return INFINITY;
    return static_cast<float>((candidates.thresholds[q] - worth.bound) * reciprocal(worth.scale));
  }

  /// Whether there is an item, and the query may have it.
  RECFUSE_DEVICE bool admits(std::int64_t q, std::int32_t id) const { return id >= 0 && filters.admit(q, id); }

 private:
  /// The most by which a sum, times its scale, differs from the score of an item of the tile; with room for the
  /// roundings of intervals and thresholds to float32.
  RECFUSE_DEVICE double bound_of(std::int64_t q, std::int64_t tile, int group) const {
    double sum = 0;
    for (int m = 0; m < tiles.n_modalities; ++m) {
      if (tiles.present[group * tiles.n_modalities + m] == 0) continue;
      const QueryBound& of_query = queries.bounds[q * tiles.n_modalities + m];
      const double* const of_tile = tiles.norms + (tile * tiles.n_modalities + m) * 2;
      sum += of_query.kept * of_tile[0] + of_query.lost * of_tile[1];
    }
    return queries.factors[q * tiles.n_groups + group] * sum * (1 + kRoundings) + kUnderflow;
  }
};

}  // namespace recfuse::cuda
