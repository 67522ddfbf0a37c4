// The scan: tiles of queries times tiles of items in float16, and nothing is stored but what can still rank.
#pragma once

#include <cmath>
#include <cstdint>

#include "block.cuh"
#include "scan.cuh"
#include "tile_image.cuh"

namespace recfuse::cuda {

/// `kWarpsM` x `kWarpsN` warps, each with `kBlocksM` x `kBlocksN` blocks of 16 queries x 8 items in registers.
template <int kWarpsM, int kWarpsN, int kBlocksM, int kBlocksN, int kStages>
struct Screen {
  static constexpr int kThreads = kWarpsM * kWarpsN * kWarp;
  static constexpr int kQueries = kWarpsM * kBlocksM * 16;
  static_assert(kWarpsN * kBlocksN * 8 == kTileItems && kBlocksN % 2 == 0);

  Scan scan;
  std::int64_t first_tile, last_tile;  // of this pass
  std::int64_t tiles_per_block;

  /// Of the queries and tile at hand.
  struct Rows {
    float least[kQueries];   // sums from here on may rank
    double scale[kQueries];  // what a sum is worth
    double bound[kQueries];  // and how far that may be off
  };
  static constexpr int kQueryBytes = kQueries * kRowBytes, kItemBytes = kTileItems * kRowBytes;
  static constexpr int kStageBytes = kQueryBytes + kItemBytes;
  static constexpr std::size_t kSharedBytes = kStages * kStageBytes + sizeof(Rows);

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    scan_tiles(block, *this);
  }

 protected:
  /// `collector` has collect(), which sees the sums of a tile when they are complete.
  template <class Block, class Collector>
  RECFUSE_DEVICE void scan_tiles(Block& block, const Collector& collector) const {
    const std::int64_t first = first_tile + block.y() * tiles_per_block;
    const std::int64_t n_tiles = (first + tiles_per_block < last_tile ? first + tiles_per_block : last_tile) - first;
    if (n_tiles <= 0) return;
    const std::int64_t n_steps = n_tiles * scan.tiles.n_slabs;
    auto& rows = *reinterpret_cast<Rows*>(block.shared() + kStages * kStageBytes);
    typename Block::template PerThread<Sums> sums(block);
    for (int step = 0; step < kStages - 1; ++step) {
      if (step < n_steps) load(block, step, first);
      block.end_copies();
    }
    std::int64_t tile = first;
    int slab = 0;
    for (std::int64_t step = 0; step < n_steps; ++step) {
      block.template wait_for_copies<kStages - 2>();
      if (step + kStages - 1 < n_steps) load(block, step + kStages - 1, first);
      block.end_copies();
      if (slab == 0) start_tile(block, tile, rows, sums);
      multiply(block, block.shared() + step % kStages * kStageBytes, sums);
      if (++slab == scan.tiles.n_slabs) {
        collector.collect(block, tile, rows, sums);
        slab = 0;
        ++tile;
      }
    }
  }

  struct Sums {
    FragmentC block[kBlocksM][kBlocksN];
  };
  struct Operands {
    FragmentA a[kBlocksM];
    FragmentB b[kBlocksN];
  };

  /// Slab `step` of the scan: the queries' and the items'.
  template <class Block>
  RECFUSE_DEVICE void load(Block& block, std::int64_t step, std::int64_t first) const {
    char* const to = block.shared() + step % kStages * kStageBytes;
    const std::int64_t slab = step % scan.tiles.n_slabs;
    const auto* const of_queries = reinterpret_cast<const char*>(scan.queries.image) +
                                   (block.x() * std::int64_t{scan.tiles.n_slabs} + slab) * kQueryBytes;
    const auto* const of_items =
        reinterpret_cast<const char*>(scan.tiles.image) + (first * scan.tiles.n_slabs + step) * kItemBytes;
    block.each_warp([&](int warp) {
      block.each_lane(warp, [&](int thread, int) {
        for (int at = thread * kChunkBytes; at < kQueryBytes; at += kThreads * kChunkBytes) {
          block.copy_16(to + at, of_queries + at);
        }
        for (int at = thread * kChunkBytes; at < kItemBytes; at += kThreads * kChunkBytes) {
          block.copy_16(to + kQueryBytes + at, of_items + at);
        }
      });
    });
  }

  /// From which sum on an item of the tile may rank, for every query.
  template <class Block, class PerThread>
  RECFUSE_DEVICE void start_tile(Block& block, std::int64_t tile, Rows& rows, PerThread& sums) const {
    block.each_thread([&](int thread) {
      RECFUSE_UNROLL
      for (int i = 0; i < kBlocksM; ++i) {
        RECFUSE_UNROLL
        for (int j = 0; j < kBlocksN; ++j) sums[thread].block[i][j] = {{0, 0, 0, 0}};
      }
      for (int row = thread; row < kQueries; row += kThreads) {
        const std::int64_t q = std::int64_t{block.x()} * kQueries + row;
        QueryInGroup query;
        rows.least[row] = scan.least_sum(q, tile, query);
        if (query.scale == 0) continue;
        const Worth worth = scan.worth(q, tile);
        rows.scale[row] = worth.scale;
        rows.bound[row] = worth.bound;
      }
    });
  }

  template <class Block, class PerThread>
  RECFUSE_DEVICE void multiply(Block& block, const char* stage, PerThread& sums) const {
    RECFUSE_UNROLL
    for (int column = 0; column < kSlab; column += kColumns) multiply_columns(block, stage, column, sums);
  }

  /// Of a slab, kColumns columns.
  template <class Block, class PerThread>
  RECFUSE_DEVICE void multiply_columns(Block& block, const char* stage, int column, PerThread& sums) const {
    typename Block::template PerThread<Operands> operands(block);
    const int chunk = column / 8;
    block.each_warp([&](int warp) {
      const int query_row = warp / kWarpsN * (kBlocksM * 16), item_row = warp % kWarpsN * (kBlocksN * 8);
      RECFUSE_UNROLL
      for (int i = 0; i < kBlocksM; ++i) {
        block.load_matrices(
            warp, [&](int thread) { return operands[thread].a[i].pair; },
            [&](int lane) {
              const int row = query_row + i * 16 + lane % 16;
              return stage + chunk_offset(row, chunk + lane / 16);
            });
      }
      RECFUSE_UNROLL
      for (int j = 0; j < kBlocksN; j += 2) {
        block.load_matrices(
            warp, [&](int thread) { return operands[thread].b[j].pair; },
            [&](int lane) {
              const int row = item_row + j * 8 + lane / 16 * 8 + lane % 8;
              return stage + kQueryBytes + chunk_offset(row, chunk + lane / 8 % 2);
            });
      }
      RECFUSE_UNROLL
      for (int i = 0; i < kBlocksM; ++i) {
        RECFUSE_UNROLL
        for (int j = 0; j < kBlocksN; ++j) {
          block.multiply(
              warp, [&](int thread) -> FragmentA& { return operands[thread].a[i]; },
              [&](int thread) -> FragmentB& { return operands[thread].b[j]; },
              [&](int thread) -> FragmentC& { return sums[thread].block[i][j]; });
        }
      }
    });
  }

  template <class Block, class PerThread>
  RECFUSE_DEVICE void collect(Block& block, std::int64_t tile, const Rows& rows, PerThread& sums) const {
    each_row(block, sums, [&](int row, const auto& each_sum) {
      const float least = rows.least[row];
      each_sum([&](int, int column, float sum) {
        if (sum >= least) found(block, tile, rows, row, column, sum);
      });
    });
  }

  static constexpr int kSumsOfRow = 2 * kBlocksN;  // that a thread has

  /// visit(row, each_sum) in every thread for the queries that it has sums of; each_sum(f) calls f(i, column, sum) for
  /// those.
  template <class Block, class PerThread, class Visit>
  RECFUSE_DEVICE void each_row(Block& block, PerThread& sums, const Visit& visit) const {
    block.each_thread([&](int thread) {
      const int warp = thread / kWarp, lane = thread % kWarp;
      const int query_row = warp / kWarpsN * (kBlocksM * 16), item_row = warp % kWarpsN * (kBlocksN * 8);
      RECFUSE_UNROLL
      for (int i = 0; i < kBlocksM; ++i) {
        RECFUSE_UNROLL
        for (int half = 0; half < 2; ++half) {
          visit(query_row + i * 16 + fragment_row(lane, 2 * half), [&](const auto& f) {
            RECFUSE_UNROLL
            for (int j = 0; j < kBlocksN; ++j) {
              RECFUSE_UNROLL
              for (int c = 0; c < 2; ++c) {
                f(2 * j + c, item_row + j * 8 + fragment_column(lane, c), sums[thread].block[i][j].value[2 * half + c]);
              }
            }
          });
        }
      }
    });
  }

  template <class Block>
  RECFUSE_DEVICE void found(Block& block, std::int64_t tile, const Rows& rows, int row, int column, float sum) const {
    const std::int64_t q = std::int64_t{block.x()} * kQueries + row;
    const std::int32_t id = scan.tiles.ids[tile * kTileItems + column];
    if (!scan.admits(q, id)) return;
    scan.candidates.push(block, q, id, sum * rows.scale[row], rows.bound[row]);
  }
};

/// Many queries, with the shared memory of a data centre's GPU or with that of any; and few queries, for which reading
/// the items is what takes time.
using ScreenMany = Screen<4, 2, 4, 8, 3>;
using ScreenSome = Screen<2, 2, 4, 8, 3>;
using ScreenFew = Screen<1, 4, 1, 4, 4>;
static_assert(ScreenMany::kSharedBytes <= 163 << 10 && ScreenSome::kSharedBytes <= 99 << 10);

}  // namespace recfuse::cuda
