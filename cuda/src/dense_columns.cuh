// Columns that so many rows have that the matrix units add them up sooner than atomics: their values as a dense matrix
// of bytes, and the rows without them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "block.cuh"
#include "list_kernels.cuh"
#include "recfuse/sparse_memory.hpp"
#include "search_rows.cuh"
#include "strip_lists.cuh"
#include "tile_image.cuh"

namespace recfuse::cuda {

/// Entries of every column, and its largest value.
struct MeasureColumns {
  static constexpr int kThreads = EachEntry::kThreads;
  EachEntry each_entry;
  float scale;
  std::int32_t* sizes;     // 0 before
  std::uint32_t* largest;  // 0 before

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    each_entry(block, [&](std::int64_t, std::int64_t e) {
      const std::int32_t column = each_entry.rows.columns[e];
      block.add_atomically(sizes + column, 1);
      block.raise_atomically(largest + column, whole(each_entry.rows, e, scale));
    });
  }

  RECFUSE_DEVICE static std::uint32_t whole(const SparseRows& rows, std::int64_t e, float scale) {
    return rows.values == nullptr ? 1 : static_cast<std::uint32_t>(rows.values[e] * scale);
  }
};

/// Entries of every row outside of dense columns.
struct CountOthers {
  static constexpr int kThreads = EachEntry::kThreads;
  EachEntry each_entry;
  const std::int32_t* places;  // of the columns in the dense matrix; -1: not there
  std::int32_t* sizes;         // 0 before

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    each_entry(block, [&](std::int64_t row, std::int64_t e) {
      if (places[each_entry.rows.columns[e]] < 0) block.add_atomically(sizes + row, 1);
    });
  }
};

/// Every row from its end down: in which order its columns come is left to chance, and does not matter.
struct CopyOthers {
  static constexpr int kThreads = EachEntry::kThreads;
  EachEntry each_entry;
  const std::int32_t* places;
  const std::int64_t* indptr;
  std::int32_t* left;  // sizes of the rows before, 0 afterwards
  std::int32_t* columns;
  float* values;  // null: there are none

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const SparseRows& rows = each_entry.rows;
    each_entry(block, [&](std::int64_t row, std::int64_t e) {
      if (places[rows.columns[e]] >= 0) return;
      const std::int64_t at = indptr[row] + block.add_atomically(left + row, -1) - 1;
      columns[at] = rows.columns[e];
      if (values != nullptr) values[at] = rows.values[e];
    });
  }
};

struct FillDense {
  static constexpr int kThreads = EachEntry::kThreads;
  EachEntry each_entry;
  float scale;
  const std::int32_t* places;
  std::int64_t depth;
  std::int8_t* bytes;  // (rows, depth), 0 before

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    each_entry(block, [&](std::int64_t row, std::int64_t e) {
      const std::int32_t place = places[each_entry.rows.columns[e]];
      if (place < 0) return;
      bytes[row * depth + place] = static_cast<std::int8_t>(MeasureColumns::whole(each_entry.rows, e, scale));
    });
  }
};

/// Sums over the dense columns, of rows of tasks and all rows: tiles of 128 x 128, a slab of 128 columns at a time.
struct MultiplyDense {
  static constexpr int kWarpsM = 2, kWarpsN = 4, kBlocksM = 4, kBlocksN = 4, kStages = 3;
  static constexpr int kThreads = kWarpsM * kWarpsN * kWarp;
  static constexpr int kBlocksAtOnce = 2;  // which shared memory allows
  static constexpr int kTile = kDenseTile, kTileBytes = kTile * kRowBytes;
  static_assert(kWarpsM * kBlocksM * 16 == kTile && kWarpsN * kBlocksN * 8 == kTile);
  static constexpr std::size_t kSharedBytes = kStages * 2 * kTileBytes;

  const std::int8_t* bytes;  // (rows, of all tiles; depth)
  std::int64_t depth;        // of whole slabs
  const RowTask* tasks;
  std::int64_t n_tasks;
  std::int64_t stride;  // rows, of all tiles
  std::int32_t* sums;   // (tasks, stride)

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const auto n_slabs = static_cast<int>(depth / kRowBytes);
    typename Block::template PerThread<Sums> of_threads(block);
    for (int slab = 0; slab < kStages - 1; ++slab) {
      if (slab < n_slabs) load(block, slab);
      block.end_copies();
    }
    block.each_thread([&](int thread) {
      RECFUSE_UNROLL
      for (int i = 0; i < kBlocksM; ++i) {
        RECFUSE_UNROLL
        for (int j = 0; j < kBlocksN; ++j) of_threads[thread].block[i][j] = {{0, 0, 0, 0}};
      }
    });
    for (int slab = 0; slab < n_slabs; ++slab) {
      block.template wait_for_copies<kStages - 2>();
      if (slab + kStages - 1 < n_slabs) load(block, slab + kStages - 1);
      block.end_copies();
      const char* const stage = block.shared() + slab % kStages * 2 * kTileBytes;
      RECFUSE_UNROLL
      for (int chunk = 0; chunk < kRowBytes / kChunkBytes; chunk += 2) multiply(block, stage, chunk, of_threads);
    }
    write(block, of_threads);
  }

 private:
  struct Sums {
    FragmentSums block[kBlocksM][kBlocksN];
  };
  struct Operands {
    FragmentA a[kBlocksM];
    FragmentB b[kBlocksN];
  };

  template <class Block>
  RECFUSE_DEVICE void load(Block& block, int slab) const {
    char* const to = block.shared() + slab % kStages * 2 * kTileBytes;
    const std::int64_t first = std::int64_t{block.y()} * kTile, first_id = std::int64_t{block.x()} * kTile;
    constexpr int kChunks = kRowBytes / kChunkBytes;
    block.each_warp([&](int warp) {
      block.each_lane(warp, [&](int thread, int) {
        for (int i = thread; i < kTile * kChunks; i += kThreads) {
          const int row = i / kChunks, chunk = i % kChunks;
          const std::int64_t task = first + row < n_tasks ? first + row : first;  // beyond the last: not written
          const std::int64_t at = slab * kRowBytes + chunk * kChunkBytes;
          block.copy_16(to + chunk_offset(row, chunk), bytes + tasks[task].row * depth + at);
          block.copy_16(to + kTileBytes + chunk_offset(row, chunk), bytes + (first_id + row) * depth + at);
        }
      });
    });
  }

  /// 32 columns.
  template <class Block, class PerThread>
  RECFUSE_DEVICE void multiply(Block& block, const char* stage, int chunk, PerThread& of_threads) const {
    typename Block::template PerThread<Operands> operands(block);
    block.each_warp([&](int warp) {
      const int first = warp / kWarpsN * (kBlocksM * 16), first_id = warp % kWarpsN * (kBlocksN * 8);
      RECFUSE_UNROLL
      for (int i = 0; i < kBlocksM; ++i) {
        block.load_matrices(
            warp, [&](int thread) { return operands[thread].a[i].pair; },
            [&](int lane) { return stage + chunk_offset(first + i * 16 + lane % 16, chunk + lane / 16); });
      }
      RECFUSE_UNROLL
      for (int j = 0; j < kBlocksN; j += 2) {
        block.load_matrices(
            warp, [&](int thread) { return operands[thread].b[j].pair; },
            [&](int lane) {
              const int row = first_id + j * 8 + lane / 16 * 8 + lane % 8;
              return stage + kTileBytes + chunk_offset(row, chunk + lane / 8 % 2);
            });
      }
      RECFUSE_UNROLL
      for (int i = 0; i < kBlocksM; ++i) {
        RECFUSE_UNROLL
        for (int j = 0; j < kBlocksN; ++j) {
          block.multiply_bytes(
              warp, [&](int thread) -> FragmentA& { return operands[thread].a[i]; },
              [&](int thread) -> FragmentB& { return operands[thread].b[j]; },
              [&](int thread) -> FragmentSums& { return of_threads[thread].block[i][j]; });
        }
      }
    });
  }

  template <class Block, class PerThread>
  RECFUSE_DEVICE void write(Block& block, PerThread& of_threads) const {
    block.each_warp([&](int warp) {
      const std::int64_t first = std::int64_t{block.y()} * kTile + warp / kWarpsN * (kBlocksM * 16);
      const std::int64_t first_id = std::int64_t{block.x()} * kTile + warp % kWarpsN * (kBlocksN * 8);
      block.each_lane(warp, [&](int thread, int lane) {
        RECFUSE_UNROLL
        for (int i = 0; i < kBlocksM; ++i) {
          RECFUSE_UNROLL
          for (int j = 0; j < kBlocksN; ++j) {
            RECFUSE_UNROLL
            for (int c = 0; c < 4; ++c) {
              const std::int64_t task = first + i * 16 + fragment_row(lane, c);
              if (task >= n_tasks) continue;
              sums[task * stride + first_id + j * 8 + fragment_column(lane, c)] =
                  of_threads[thread].block[i][j].value[c];
            }
          }
        }
      });
    });
  }
};

/// The dense columns of a matrix, if there are any that pay.
template <class Device>
class DenseColumns {
 public:
  /// Of values that times `scale` are whole numbers.
  DenseColumns(Device& device, const DeviceRows<Device>& matrix, float scale, const DenseCosts& costs)
      : device_(device), n_rows_(matrix.n_rows()), scale_(scale), rows_(matrix.view()) {
    choose(matrix.n_columns(), costs);
    if (n_dense_ == 0) return;
    cost_ = costs.of_row(n_rows_, n_dense_);
    leave_out();
  }

  bool any() const { return n_dense_ > 0; }
  /// Additions that a row must save.
  std::int64_t cost() const { return cost_; }
  /// The rows without them.
  SparseRows others() const {
    return {indptr_.data(), columns_.data(), values_.size() > 0 ? values_.data() : nullptr, n_rows_,
            static_cast<std::int64_t>(columns_.size())};
  }

 private:
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  /// The dense matrix, and what sums of some rows begin with.
  class Products {
   public:
    /// `at_once`: rows, at most.
    Products(const DenseColumns& of, std::int64_t at_once)
        : of_(of),
          bytes_(of.device_, static_cast<std::size_t>(stride() * of.depth())),
          sums_(of.device_, static_cast<std::size_t>(at_once * stride())) {
      bytes_.clear();
      of.device_.launch(FillDense{{of.rows_}, of.scale_, of.places_.data(), of.depth(), bytes_.data()},
                        of.blocks_for_entries(), 1, 0);
    }

    std::int64_t stride() const { return dense_tiles(of_.n_rows_) * kDenseTile; }
    /// For tasks of whole rows: (n, stride()), until the next ones.
    const std::int32_t* of(const RowTask* tasks, std::int64_t n) {
      of_.device_.launch(MultiplyDense{bytes_.data(), of_.depth(), tasks, n, stride(), sums_.data()},
                         dense_tiles(of_.n_rows_), dense_tiles(n), MultiplyDense::kSharedBytes);
      return sums_.data();
    }

   private:
    const DenseColumns& of_;
    Array<std::int8_t> bytes_;
    Array<std::int32_t> sums_;
  };

 private:
  std::int64_t depth() const { return dense_depth(n_dense_); }
  std::int64_t blocks_for_entries() const { return (rows_.n_entries + EachEntry::kEntries - 1) / EachEntry::kEntries; }

  void choose(std::int64_t n_columns, const DenseCosts& costs) {
    std::vector<std::int32_t> sizes;
    std::vector<std::uint32_t> largest;
    {
      Array<std::int32_t> sizes_there(device_, static_cast<std::size_t>(n_columns));
      Array<std::uint32_t> largest_there(device_, static_cast<std::size_t>(n_columns));
      sizes_there.clear();
      largest_there.clear();
      device_.launch(MeasureColumns{{rows_}, scale_, sizes_there.data(), largest_there.data()}, blocks_for_entries(), 1,
                     0);
      sizes = sizes_there.all();
      largest = largest_there.all();
    }
    const std::vector<std::int32_t> dense = costs.columns(n_rows_, sizes, largest);
    n_dense_ = static_cast<std::int64_t>(dense.size());
    if (n_dense_ == 0) return;
    std::vector<std::int32_t> places(sizes.size(), -1);
    for (std::size_t i = 0; i < dense.size(); ++i) {
      places[static_cast<std::size_t>(dense[i])] = static_cast<std::int32_t>(i);
      n_dense_entries_ += sizes[static_cast<std::size_t>(dense[i])];
    }
    places_ = {device_, std::span<const std::int32_t>(places)};
  }

  void leave_out() {
    Array<std::int32_t> sizes(device_, static_cast<std::size_t>(n_rows_));
    sizes.clear();
    device_.launch(CountOthers{{rows_}, places_.data(), sizes.data()}, blocks_for_entries(), 1, 0);
    indptr_ = {device_, static_cast<std::size_t>(n_rows_) + 1};
    place_lists(device_, sizes.data(), n_rows_, indptr_.data());
    columns_ = {device_, static_cast<std::size_t>(rows_.n_entries - n_dense_entries_)};
    if (rows_.values != nullptr) values_ = {device_, columns_.size()};
    device_.launch(CopyOthers{{rows_},
                              places_.data(),
                              indptr_.data(),
                              sizes.data(),
                              columns_.data(),
                              rows_.values != nullptr ? values_.data() : nullptr},
                   blocks_for_entries(), 1, 0);
  }

  Device& device_;
  std::int64_t n_rows_;
  float scale_;
  SparseRows rows_;
  std::int64_t n_dense_ = 0, n_dense_entries_ = 0, cost_ = 0;
  Array<std::int32_t> places_;
  Array<std::int64_t> indptr_;
  Array<std::int32_t> columns_;
  Array<float> values_;
};

}  // namespace recfuse::cuda
