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
  const std::int32_t* ends = nullptr;  // (modalities): column of the image after the last
};

struct ScreenedQueries {
  const half_bits* image;
  const QueryBound* bounds;  // (n, modalities)
  const double* scales;      // (n)
  const double* factors;     // (n, groups)
  std::int64_t n;
  // Of fusions that are no sums:
  Fusion fusion = Fusion::kSum;
  Missing missing = Missing::kRenormalise;
  const double* weights = nullptr;  // (1 or n, modalities)
  std::int64_t n_weights = 1;
};

/// Of a query, for items that have the same modalities.
struct QueryInGroup {
  int group = -1;  // none yet
  double factor = 0;
  double scale = 0;    // what a sum is worth; 0: the query is not ranked, or not screened
  double inverse = 0;  // of the scale
};

/// Of a query and a tile: what a sum is worth, and how far that may be off.
struct Worth {
  double scale, bound;
};

struct Scan {
  Tiles tiles;
  ScreenedQueries queries;
  Candidates candidates;
  Filters filters;

  /// Queries beyond the last are not ranked.
  RECFUSE_DEVICE QueryInGroup query_in_group(std::int64_t q, int group) const {
    if (q >= queries.n) return {group};
    const double factor = queries.factors[q * tiles.n_groups + group], scale = queries.scales[q] * factor;
    if (scale == 0) return {group};
    return {group, factor, scale, 1 / scale};
  }

  /// From this sum on an item of the tile may rank. `query` is what is known from the tile before.
  RECFUSE_DEVICE float least_sum(std::int64_t q, std::int64_t tile, QueryInGroup& query) const {
    const int group = tiles.groups[tile];
    if (group != query.group) query = query_in_group(q, group);
    if (query.scale == 0) return INFINITY;
    return static_cast<float>((candidates.thresholds[q] - bound_of(q, tile, query)) * query.inverse);
  }

  /// For a query that is ranked.
  RECFUSE_DEVICE Worth worth(std::int64_t q, std::int64_t tile) const {
    const QueryInGroup query = query_in_group(q, tiles.groups[tile]);
    return {query.scale, bound_of(q, tile, query)};
  }

  /// Whether there is an item, and the query may have it.
  RECFUSE_DEVICE bool admits(std::int64_t q, std::int32_t id) const { return id >= 0 && filters.admit(q, id); }

 private:
  /// The most by which a sum, times its scale, differs from the score of an item of the tile; with room for the
  /// roundings of intervals and thresholds to float32.
  RECFUSE_DEVICE double bound_of(std::int64_t q, std::int64_t tile, const QueryInGroup& query) const {
    double sum = 0;
    for (int m = 0; m < tiles.n_modalities; ++m) {
      if (tiles.present[query.group * tiles.n_modalities + m] == 0) continue;
      const QueryBound& of_query = queries.bounds[q * tiles.n_modalities + m];
      const double* const of_tile = tiles.norms + (tile * tiles.n_modalities + m) * 2;
      sum += of_query.kept * of_tile[0] + of_query.lost * of_tile[1];
    }
    return query.factor * sum * (1 + kRoundings) + kUnderflow;
  }
};

}  // namespace recfuse::cuda
