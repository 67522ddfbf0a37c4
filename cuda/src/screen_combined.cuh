// The scan for fusions that are no sums: product, max and min of the terms of the modalities.
//
// Sums of float16 are complete when a modality ends, and are combined then and there, in float64: next to the 2 d
// operations of a sum, the few of a term do not count. With t_m in [t~_m - b_m, t~_m + b_m], max and min lie between
// those of the ends, and
//   | prod t_m - prod t~_m |  <=  prod(|t~_m| + b_m) - prod |t~_m|
#pragma once

#include <cmath>
#include <cstdint>

#include "screen.cuh"

namespace recfuse::cuda {

constexpr int kMostCombined = 8;  // modalities

template <int kWarpsM, int kWarpsN, int kBlocksM, int kBlocksN, int kStages>
struct ScreenCombined : Screen<kWarpsM, kWarpsN, kBlocksM, kBlocksN, kStages> {
  using Base = Screen<kWarpsM, kWarpsN, kBlocksM, kBlocksN, kStages>;
  using Base::first_tile, Base::last_tile, Base::scan, Base::tiles_per_block;
  using Base::kQueries, Base::kStageBytes, Base::kThreads;

  /// Of the queries and tile at hand.
  struct Rows {
    double scale[kQueries];                 // what a sum is worth; 0: the query or the tile is not screened
    double bound[kMostCombined][kQueries];  // of a term; negative: it does not count
    float threshold[kQueries];              // what a score has to reach; NaN where the scale is 0
    int first[kQueries];                    // modality that counts
  };
  static constexpr std::size_t kSharedBytes = kStages * kStageBytes + sizeof(Rows);

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t first = first_tile + block.y() * tiles_per_block;
    const std::int64_t n_tiles = (first + tiles_per_block < last_tile ? first + tiles_per_block : last_tile) - first;
    if (n_tiles <= 0) return;
    const std::int64_t n_steps = n_tiles * scan.tiles.n_slabs;
    auto& rows = *reinterpret_cast<Rows*>(block.shared() + kStages * kStageBytes);
    typename Block::template PerThread<Sums> sums(block);
    typename Block::template PerThread<Combined> combined(block);
    for (int step = 0; step < kStages - 1; ++step) {
      if (step < n_steps) this->load(block, step, first);
      block.end_copies();
    }
    std::int64_t tile = first;
    int slab = 0, modality = 0;
    for (std::int64_t step = 0; step < n_steps; ++step) {
      block.template wait_for_copies<kStages - 2>();
      if (step + kStages - 1 < n_steps) this->load(block, step + kStages - 1, first);
      block.end_copies();
      if (slab == 0) start_tile(block, tile, rows, sums, combined);
      const char* const stage = block.shared() + step % kStages * kStageBytes;
      for (int column = 0; column < kSlab; column += kColumns) {
        this->multiply_columns(block, stage, column, sums);
        if (modality == scan.tiles.n_modalities || slab * kSlab + column + kColumns != scan.tiles.ends[modality])
          continue;
        combine(block, modality, rows, sums, combined);
        ++modality;
      }
      if (++slab == scan.tiles.n_slabs) {
        collect(block, tile, rows, combined);
        slab = modality = 0;
        ++tile;
      }
    }
  }

 private:
  using Sums = typename Base::Sums;
  /// Of the modalities so far: the ends of the interval; of a product its value and that of |t~_m| + b_m.
  struct Combined {
    double low[kBlocksM][kBlocksN][4], high[kBlocksM][kBlocksN][4];
  };

  template <class Block, class OfSums, class OfCombined>
  RECFUSE_DEVICE void start_tile(Block& block, std::int64_t tile, Rows& rows, OfSums& sums,
                                 OfCombined& combined) const {
    block.each_thread([&](int thread) {
      RECFUSE_UNROLL
      for (int i = 0; i < kBlocksM; ++i) {
        RECFUSE_UNROLL
        for (int j = 0; j < kBlocksN; ++j) {
          sums[thread].block[i][j] = {{0, 0, 0, 0}};
          RECFUSE_UNROLL
          for (int c = 0; c < 4; ++c) {
            combined[thread].low[i][j][c] = combined[thread].high[i][j][c] = 0;
          }
        }
      }
      for (int row = thread; row < kQueries; row += kThreads) start_row(tile, row, block.x(), rows);
    });
  }

  RECFUSE_DEVICE void start_row(std::int64_t tile, int row, std::int64_t query_tile, Rows& rows) const {
    const std::int64_t q = query_tile * kQueries + row;
    const int group = scan.tiles.groups[tile];
    const double factor = q < scan.queries.n ? scan.queries.factors[q * scan.tiles.n_groups + group] : 0;
    rows.scale[row] = q < scan.queries.n ? scan.queries.scales[q] * factor : 0;
    rows.threshold[row] = rows.scale[row] != 0 ? scan.candidates.thresholds[q] : NAN;
    rows.first[row] = -1;
    for (int m = 0; m < scan.tiles.n_modalities; ++m) {
      const double bound = rows.scale[row] == 0 ? -1 : bound_of(q, tile, group, m, factor);
      rows.bound[m][row] = bound;
      if (bound >= 0 && rows.first[row] < 0) rows.first[row] = m;
    }
  }

  /// As in Screen, of one term; negative where it does not count.
  RECFUSE_DEVICE double bound_of(std::int64_t q, std::int64_t tile, int group, int m, double factor) const {
    const double* const weights =
        scan.queries.weights + (scan.queries.n_weights == 1 ? 0 : q) * scan.tiles.n_modalities;
    const bool present = scan.tiles.present[group * scan.tiles.n_modalities + m] != 0;
    if (weights[m] == 0 || (!present && scan.queries.missing == Missing::kRenormalise)) return -1;
    const QueryBound& of_query = scan.queries.bounds[q * scan.tiles.n_modalities + m];
    const double* const of_tile = scan.tiles.norms + (tile * scan.tiles.n_modalities + m) * 2;
    return factor * (of_query.kept * of_tile[0] + of_query.lost * of_tile[1]) * (1 + kRoundings) + kUnderflow;
  }

  template <class Block, class OfSums, class OfCombined>
  RECFUSE_DEVICE void combine(Block& block, int m, const Rows& rows, OfSums& sums, OfCombined& combined) const {
    block.each_warp([&](int warp) {
      block.each_lane(warp, [&](int thread, int lane) {
        RECFUSE_UNROLL
        for (int i = 0; i < kBlocksM; ++i) {
          RECFUSE_UNROLL
          for (int half = 0; half < 2; ++half) {
            const int row = warp / kWarpsN * (kBlocksM * 16) + i * 16 + fragment_row(lane, 2 * half);
            const double scale = rows.scale[row], bound = rows.bound[m][row];
            const bool first = rows.first[row] == m;
            RECFUSE_UNROLL
            for (int j = 0; j < kBlocksN; ++j) {
              RECFUSE_UNROLL
              for (int c = 2 * half; c < 2 * half + 2; ++c) {
                float& sum = sums[thread].block[i][j].value[c];
                const double term = sum * scale;
                sum = 0;
                if (bound >= 0) {
                  add_term(first, term, bound, combined[thread].low[i][j][c], combined[thread].high[i][j][c]);
                }
              }
            }
          }
        }
      });
    });
  }

  RECFUSE_DEVICE void add_term(bool first, double term, double bound, double& low, double& high) const {
    if (scan.queries.fusion == Fusion::kProduct) {
      const double most = std::fabs(term) + bound;
      low = first ? term : low * term;
      high = first ? most : high * most;
    } else if (scan.queries.fusion == Fusion::kMax) {
      low = first ? term - bound : std::fmax(low, term - bound);
      high = first ? term + bound : std::fmax(high, term + bound);
    } else {
      low = first ? term - bound : std::fmin(low, term - bound);
      high = first ? term + bound : std::fmin(high, term + bound);
    }
  }

  template <class Block, class OfCombined>
  RECFUSE_DEVICE void collect(Block& block, std::int64_t tile, const Rows& rows, OfCombined& combined) const {
    block.each_thread([&](int thread) {
      const int warp = thread / kWarp, lane = thread % kWarp;
      RECFUSE_UNROLL
      for (int i = 0; i < kBlocksM; ++i) {
        RECFUSE_UNROLL
        for (int c = 0; c < 4; ++c) {
          const int row = warp / kWarpsN * (kBlocksM * 16) + i * 16 + fragment_row(lane, c);
          const float threshold = rows.threshold[row];
          RECFUSE_UNROLL
          for (int j = 0; j < kBlocksN; ++j) {
            const double low = combined[thread].low[i][j][c], high = combined[thread].high[i][j][c];
            const bool product = scan.queries.fusion == Fusion::kProduct;
            const double value = product ? low : (high + low) / 2;
            const double bound =
                (product ? (high - std::fabs(low)) + high * kInFloat64 : (high - low) / 2) + kUnderflow;
            // As a score: products beyond float32 are infinite, and tie.
            if (!(static_cast<float>(value + bound) >= threshold)) continue;
            found(block, tile, row, warp % kWarpsN * (kBlocksN * 8) + j * 8 + fragment_column(lane, c), value, bound);
          }
        }
      }
    });
  }

  template <class Block>
  RECFUSE_DEVICE void found(Block& block, std::int64_t tile, int row, int column, double value, double bound) const {
    const std::int64_t q = std::int64_t{block.x()} * kQueries + row;
    const std::int32_t id = scan.tiles.ids[tile * kTileItems + column];
    if (!scan.admits(q, id)) return;
    scan.candidates.push(block, q, id, value, bound);
  }

  static constexpr double kInFloat64 = 0x1p-40;  // roundings of products, with room
};

/// Float64 takes two registers: tiles of queries are smaller than those of sums.
using ScreenTerms = ScreenCombined<2, 4, 2, 4, 3>;
static_assert(ScreenTerms::kSharedBytes <= 99 << 10);

}  // namespace recfuse::cuda
