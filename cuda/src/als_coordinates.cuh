// The coordinates in which rows are moved by steps (as ops/als_coordinates.hpp), and tables in these.
#pragma once

#include <algorithm>
#include <cstdint>

#include "als_memory.cuh"
#include "als_rows.cuh"
#include "als_spectrum.cuh"

namespace recfuse::cuda {

/// to = from times a matrix, whose columns behind the last are 0.
struct TurnRows {
  static constexpr int kThreads = 256, kSide = 64, kDepth = 16;
  static constexpr std::size_t kSharedBytes = 2 * kDepth * kSide * sizeof(float);
  const float* from;    // (n, from_stride), of which `size` count
  const float* matrix;  // (size, width)
  float* to;            // (n, to_stride)
  std::int64_t n;
  int size, width, from_stride, to_stride;

  static std::int64_t blocks_x(std::int64_t n) { return (n + kSide - 1) / kSide; }
  static std::int64_t blocks_y(int columns) { return (columns + kSide - 1) / kSide; }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    struct Sums {
      Quad<float> of_row[kTile];
    };
    auto* const rows = static_cast<float*>(static_cast<void*>(block.shared()));  // (depth, side), as the matrix is
    float* const columns = rows + kDepth * kSide;
    const std::int64_t first_row = static_cast<std::int64_t>(block.x()) * kSide;
    const int first_column = block.y() * kSide;
    typename Block::template PerThread<Sums> sums(block);
    block.each_thread([&](int thread) { sums[thread] = Sums{}; });
    for (int k = 0; k < size; k += kDepth) {
      block.each_thread([&](int thread) {
        for (int i = thread; i < kDepth * kSide; i += kThreads) {
          const int row = i / kDepth, deep = i % kDepth;
          const bool here = first_row + row < n && k + deep < size;
          rows[deep * kSide + row] = here ? from[(first_row + row) * from_stride + k + deep] : 0.0F;
        }
        for (int i = thread; i < kDepth * kSide; i += kThreads) {
          const int deep = i / kSide, column = i % kSide;
          const bool here = first_column + column < width && k + deep < size;
          columns[i] = here ? matrix[static_cast<std::int64_t>(k + deep) * width + first_column + column] : 0.0F;
        }
      });
      block.each_thread([&](int thread) {
        Sums& own = sums[thread];
        for (int deep = 0; deep < kDepth; ++deep) {
          const Quad<float> left = load_quad(rows + deep * kSide + thread / 16 * kTile),
                            right = load_quad(columns + deep * kSide + thread % 16 * kTile);
          RECFUSE_UNROLL
          for (int i = 0; i < kTile; ++i) {
            RECFUSE_UNROLL
            for (int j = 0; j < kTile; ++j) {
              own.of_row[i].v[j] = multiply_add(left.v[i], right.v[j], own.of_row[i].v[j]);
            }
          }
        }
      });
    }
    block.each_thread([&](int thread) {
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        const std::int64_t row = first_row + thread / 16 * kTile + i;
        RECFUSE_UNROLL
        for (int j = 0; j < kTile; ++j) {
          const int column = first_column + thread % 16 * kTile + j;
          if (row < n && column < to_stride) to[row * to_stride + column] = sums[thread].of_row[i].v[j];
        }
      }
    });
  }
};

/// Rows as they are, with zeros behind them.
struct PadRows {
  static constexpr int kThreads = 256;
  static constexpr std::int64_t kElements = 4096;  // of a block
  const float* from;                               // (n, size)
  float* to;                                       // (n, width)
  std::int64_t n;
  int size, width;
  bool last_is_one;

  static std::int64_t blocks(std::int64_t n, int width) { return (n * width + kElements - 1) / kElements; }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t first = block.x() * kElements, end = first + kElements;
    block.each_thread([&](int thread) {
      for (std::int64_t i = first + thread; i < end && i < n * width; i += kThreads) {
        const std::int64_t row = i / width, column = i % width;
        const bool is_one = last_is_one && column == size - 1;
        to[i] = is_one ? 1.0F : column < size ? from[row * size + column] : 0.0F;
      }
    });
  }
};

/// Mean squares of columns in float64, in runs of rows that AddSquares adds in order.
struct SumSquares {
  static constexpr int kThreads = 128;
  static constexpr std::int64_t kRows = 1024;
  const float* table;  // (n, width)
  std::int64_t n;
  int width;
  double* sums;  // (runs, width)

  static std::int64_t runs(std::int64_t n) { return (n + kRows - 1) / kRows; }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t first = block.x() * kRows, end = first + kRows < n ? first + kRows : n;
    block.each_thread([&](int thread) {
      for (int column = thread; column < width; column += kThreads) {
        double sum = 0;
        for (std::int64_t row = first; row < end; ++row) {
          const double value = table[row * width + column];
          sum += value * value;
        }
        sums[block.x() * static_cast<std::int64_t>(width) + column] = sum;
      }
    });
  }
};

struct AddSquares {
  static constexpr int kThreads = 128;
  const double* sums;
  std::int64_t n, n_runs;
  int width;
  float* means;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread) {
      for (int column = thread; column < width; column += kThreads) {
        double sum = 0;
        for (std::int64_t run = 0; run < n_runs; ++run) sum += sums[run * width + column];
        means[column] = static_cast<float>(sum / static_cast<double>(n));
      }
    });
  }
};

/// Puts rows into the table, but for those that are not finite: these have failed; or all, where there are no
/// coordinates.
struct StoreRows {
  static constexpr int kThreads = 256;
  static constexpr int kRows = kThreads / kWarp;  // of a block
  const float* from;                              // (n, from_stride)
  int from_stride, size;
  std::int64_t n, first;      // row 0 of `from` is row `first` of the table, or row order[first]
  const std::int32_t* order;  // or null
  float* table;               // (rows, size)
  const Spectrum* spectrum;   // or null
  const std::int32_t* stop;   // above 0: nothing is put; or null
  UnsolvedRows failed;

  static std::int64_t blocks(std::int64_t n) { return (n + kRows - 1) / kRows; }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    if (stop != nullptr && *stop > 0) return;
    const bool found = spectrum == nullptr || spectrum->found != 0;
    typename Block::template PerThread<float> doubts(block);
    block.each_warp([&](int warp) {
      const std::int64_t row = static_cast<std::int64_t>(block.x()) * kRows + warp;
      if (row >= n) return;
      const float* const x = from + row * from_stride;
      const std::int64_t to = order == nullptr ? first + row : order[first + row];
      block.each_lane(warp, [&](int thread, int lane) {
        doubts[thread] = 0;
        for (int j = lane; j < size; j += kWarp) doubts[thread] += x[j] - x[j];  // 0, or no number
      });
      block.template add_across<1, 16>(warp, [&](int thread) -> float& { return doubts[thread]; });
      block.each_lane(warp, [&](int thread, int lane) {
        if (found && doubts[thread] == 0) {
          for (int j = lane; j < size; j += kWarp) table[to * size + j] = x[j];
        } else if (lane == 0) {
          failed.add(block, static_cast<std::int32_t>(to), System<float>::kNotFinite);
        }
      });
    });
  }
};

/// Where the Gram matrix couples no two unknowns; without one, where they are. In memory that is taken.
template <class Device>
class CoordinatesOnDevice {
 public:
  /// `gram` as of AlsHalfStep, and `host`; or both null.
  CoordinatesOnDevice(Device& device, WorkMemory<Device>& memory, const SystemShape& shape,
                      SpectrumOnHost<Device>* host, const double* gram)
      : device_(device), memory_(memory), size_(shape.size), width_(shape.padded()), is_turned_(gram != nullptr) {
    if (!is_turned_) return;
    const std::size_t bytes = SpectrumPlaces<char>::bytes(size_, width_);
    char* const places = memory.template take<char>(bytes);
    host->send(device, gram, places);
    places_ = {places, size_, width_};
  }

  /// Rows of a table (n, size) as kernels read them: (n, width), zeros behind. The last unknown counts as 1 where that
  /// is what belongs to a bias.
  float* turned(const float* table, std::int64_t n, bool last_is_one) const {
    float* const rows = memory_.template take<float>(static_cast<std::size_t>(n * width_));
    if (!is_turned_) {
      device_.launch(PadRows{table, rows, n, size_, width_, last_is_one}, PadRows::blocks(n, width_), 1, 0);
    } else {
      device_.launch(TurnRows{table, places_.there(), rows, n, size_, width_, size_, width_}, TurnRows::blocks_x(n),
                     TurnRows::blocks_y(width_), TurnRows::kSharedBytes);
    }
    return rows;
  }

  /// The way back, into the table: row i, or row order[i]. All rows fail where there are no coordinates.
  void store(const float* rows, std::int64_t n, float* table, const UnsolvedRows& failed, const std::int32_t* stop,
             const std::int32_t* order = nullptr) const {
    constexpr std::int64_t kRows = 1 << 16;
    const typename WorkMemory<Device>::Scope scope(memory_);
    float* const some =
        is_turned_ ? memory_.template take<float>(static_cast<std::size_t>(std::min(n, kRows) * width_)) : nullptr;
    for (std::int64_t first = 0; first < n; first += kRows) {
      const std::int64_t here = std::min(kRows, n - first);
      const float* from = rows + first * width_;
      if (is_turned_) {
        device_.launch(TurnRows{from, places_.back(), some, here, size_, width_, width_, width_},
                       TurnRows::blocks_x(here), TurnRows::blocks_y(width_), TurnRows::kSharedBytes);
        from = some;
      }
      device_.launch(StoreRows{from, width_, size_, here, first, order, table, spectrum(), stop, failed},
                     StoreRows::blocks(here), 1, 0);
    }
  }

  /// Null without a Gram matrix.
  const float* eigenvalues() const { return is_turned_ ? places_.eigenvalues() : nullptr; }
  const Spectrum* spectrum() const { return is_turned_ ? places_.spectrum() : nullptr; }

 private:
  Device& device_;
  WorkMemory<Device>& memory_;
  const int size_, width_;
  const bool is_turned_;
  SpectrumPlaces<const char> places_{};
};

}  // namespace recfuse::cuda
