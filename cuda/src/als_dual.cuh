// Exact solutions of short rows, from a system of as many unknowns as the row has entries (as ops/als_dual.hpp): with
// R = W^1/2 Z D^-1/2, (I + R R') s = W^-1/2 c and x = D^-1/2 R' s. A warp or a block has a row; all of it is in shared
// memory.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "als_rows.cuh"
#include "als_spectrum.cuh"

namespace recfuse::cuda {

/// Threads that work on a row in phases: the lanes of a warp, or a block.
template <class Block>
struct WarpTeam {
  static constexpr int kThreads = kWarp;
  Block& block;
  int warp;

  template <class F>
  RECFUSE_DEVICE void each(F&& f) const {
    block.each_lane(warp, [&](int, int lane) { f(lane); });
    block.sync_warp();
  }
};

template <class Block>
struct BlockTeam {
  static constexpr int kThreads = kSystemThreads;
  Block& block;

  template <class F>
  RECFUSE_DEVICE void each(F&& f) const {
    block.each_thread(f);
  }
};

/// The systems of a side, in the coordinates of the half-step, as CgSystems.
struct DualSystems {
  RowsOnDevice rows;
  const float* features;     // (others, width)
  int width;                 // whole quads
  const float* diagonal;     // (width): that of the Gram matrix; null: 0
  const Spectrum* spectrum;  // of the same; or null
  const double* penalties;   // of every row, or one for all
  bool one_penalty;
  float* x;  // (rows of `order`, width)
};

/// Where the row of a team lies in shared memory; of at most `longest` entries.
struct DualShape {
  int longest, width;

  RECFUSE_BOTH int rows() const { return (longest + kTile - 1) / kTile * kTile; }
  RECFUSE_BOTH int row_stride() const { return width + kTile; }  // rows of one column in different banks
  RECFUSE_BOTH int matrix_stride() const { return rows() + 1; }
  RECFUSE_BOTH std::size_t bytes() const {
    return static_cast<std::size_t>((rows() * (row_stride() + matrix_stride() + 5) + width + kTile) / kTile * kTile) *
           sizeof(float);
  }
};

template <class Team>
class DualRow {
 public:
  RECFUSE_DEVICE DualRow(const Team& team, const DualSystems& systems, const DualShape& shape, float* shared)
      : team_(team), systems_(systems), shape_(shape) {
    rows_ = shared;
    spread_ = rows_ + shape.rows() * shape.row_stride();
    roots_ = spread_ + shape.width;
    right_ = roots_ + shape.rows();
    diagonal_ = right_ + shape.rows();
    inverse_ = diagonal_ + shape.rows();
    solution_ = inverse_ + shape.rows();
    matrix_ = solution_ + shape.rows();
  }

  /// A row that must be solved by its factors' system becomes one that is not finite.
  RECFUSE_DEVICE void solve(std::int64_t row, float* x) {
    first_ = systems_.rows.indptr[row];
    n_ = static_cast<int>(systems_.rows.indptr[row + 1] - first_);
    const bool solved = begin(row) && (build(), factor());
    if (solved) substitute();
    team_.each([&](int thread) {
      for (int c = thread; c < systems_.width; c += Team::kThreads) {
        float sum = solved ? 0.0F : NAN;
        for (int i = 0; solved && i < n_; ++i) {
          sum = multiply_add(rows_[i * shape_.row_stride() + c], solution_[i], sum);
        }
        x[c] = solved ? sum * spread_[c] : sum;
      }
    });
  }

 private:
  /// What entries weigh, and D^-1/2. False: D has elements that are rounding, or an entry is in b alone.
  RECFUSE_DEVICE bool begin(std::int64_t row) const {
    const double penalty = systems_.penalties[systems_.one_penalty ? 0 : row];
    const Spectrum spectrum = systems_.spectrum == nullptr ? Spectrum{} : *systems_.spectrum;
    const double least = spectrum.least_eigenvalue + penalty;
    const bool good = least > 0 && !(least < spectrum.least);
    team_.each([&](int thread) {
      for (int c = thread; c < systems_.width; c += Team::kThreads) {
        const double eigenvalue = systems_.diagonal == nullptr ? 0.0F : systems_.diagonal[c];
        spread_[c] = 1 / std::sqrt(static_cast<float>(penalty + eigenvalue));
      }
      for (int i = thread; i < n_; i += Team::kThreads) {
        float weight, target;
        systems_.rows.terms(first_ + i, weight, target);
        roots_[i] = std::sqrt(weight);
        // No number: factor() finds it.
        right_[i] = target == 0 ? 0.0F : weight > 0 ? target / roots_[i] : NAN;
      }
    });
    return good;
  }

  /// R, and I + R R'.
  RECFUSE_DEVICE void build() const {
    const int n_tiles = (n_ + kTile - 1) / kTile, quads = systems_.width / kTile, stride = shape_.row_stride();
    team_.each([&](int thread) {
      for (int at = thread; at < n_tiles * kTile * quads; at += Team::kThreads) {
        const int i = at / quads, column = at % quads * kTile;
        Quad<float> quad{};
        if (i < n_) {
          quad = load_quad(systems_.features + systems_.rows.other(first_ + i) * systems_.width + column);
          RECFUSE_UNROLL
          for (int j = 0; j < kTile; ++j) quad.v[j] *= roots_[i] * spread_[column + j];
        }
        store_quad(rows_ + i * stride + column, quad);
      }
    });
    team_.each([&](int thread) {
      for (int t = thread; t < lower_tiles(n_tiles); t += Team::kThreads) build_tile(tile_place(t), quads);
    });
  }

  RECFUSE_DEVICE void build_tile(const TilePlace& place, int quads) const {
    const int stride = shape_.row_stride();
    float sum[kTile][kTile] = {};
    for (int q = 0; q < quads; ++q) {
      Quad<float> left[kTile], right[kTile];
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        left[i] = load_quad(rows_ + (place.row * kTile + i) * stride + q * kTile);
        right[i] = load_quad(rows_ + (place.column * kTile + i) * stride + q * kTile);
      }
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        RECFUSE_UNROLL
        for (int j = 0; j < kTile; ++j) {
          RECFUSE_UNROLL
          for (int k = 0; k < kTile; ++k) sum[i][j] = multiply_add(left[i].v[k], right[j].v[k], sum[i][j]);
        }
      }
    }
    RECFUSE_UNROLL
    for (int i = 0; i < kTile; ++i) {
      RECFUSE_UNROLL
      for (int j = 0; j < kTile; ++j) {
        const int row = place.row * kTile + i, column = place.column * kTile + j;
        if (column > row) continue;
        matrix_[row * shape_.matrix_stride() + column] = row == column ? sum[i][j] + 1 : sum[i][j];
        if (row == column) diagonal_[row] = sum[i][j] + 1;
      }
    }
  }

  /// The matrix becomes its Cholesky factor L, b becomes L^-1 b. False where a pivot is below 1/32 of its diagonal
  /// element: entries nearly repeat one another, and s is long against x.
  RECFUSE_DEVICE bool factor() const {
    constexpr float kSmallestShare = 1.0F / 32;
    const int stride = shape_.matrix_stride();
    for (int k = 0; k < n_; ++k) {
      const float pivot = matrix_[k * stride + k], b = right_[k];
      if (!(pivot >= kSmallestShare * diagonal_[k]) || pivot - pivot != 0 || b - b != 0) return false;
      const float inverse = 1 / std::sqrt(pivot);
      team_.each([&](int thread) {
        for (int i = k + 1 + thread; i < n_; i += Team::kThreads) matrix_[i * stride + k] *= inverse;
        if (thread == 0) inverse_[k] = inverse;
      });
      const float z = b * inverse;
      team_.each([&](int thread) {
        for (int i = k + 1 + thread / kWarp; i < n_; i += Team::kThreads / kWarp) {
          const float scale = -matrix_[i * stride + k];
          for (int j = k + 1 + thread % kWarp; j <= i; j += kWarp) {
            matrix_[i * stride + j] = multiply_add(scale, matrix_[j * stride + k], matrix_[i * stride + j]);
          }
        }
        for (int i = k + 1 + thread; i < n_; i += Team::kThreads) {
          right_[i] = multiply_add(-z, matrix_[i * stride + k], right_[i]);
        }
        if (thread == 0) solution_[k] = z;
      });
    }
    return true;
  }

  RECFUSE_DEVICE void substitute() const {
    const int stride = shape_.matrix_stride();
    for (int k = n_ - 1; k >= 0; --k) {
      const float s = solution_[k] * inverse_[k];
      team_.each([&](int thread) {
        for (int j = thread; j < k; j += Team::kThreads) {
          solution_[j] = multiply_add(-s, matrix_[k * stride + j], solution_[j]);
        }
        if (thread == 0) right_[k] = s;
      });
    }
    team_.each([&](int thread) {
      for (int j = thread; j < n_; j += Team::kThreads) solution_[j] = right_[j];
    });
  }

  const Team team_;
  const DualSystems& systems_;
  const DualShape shape_;
  float *rows_, *spread_, *roots_, *right_, *diagonal_, *inverse_, *solution_, *matrix_;
  std::int64_t first_ = 0;
  int n_ = 0;
};

/// Rows of `order`, a warp each.
struct DualRowsByWarps {
  static constexpr int kThreads = 128, kWarps = kThreads / kWarp;
  DualSystems systems;
  DualShape shape;
  const std::int32_t* order;
  std::int64_t n;

  static std::int64_t blocks(std::int64_t n) { return (n + kWarps - 1) / kWarps; }
  static std::size_t shared_bytes(const DualShape& shape) { return kWarps * shape.bytes(); }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_warp([&](int warp) {
      const std::int64_t at = static_cast<std::int64_t>(block.x()) * kWarps + warp;
      if (at >= n) return;
      auto* const shared = static_cast<float*>(static_cast<void*>(block.shared() + warp * shape.bytes()));
      DualRow row(WarpTeam<Block>{block, warp}, systems, shape, shared);
      row.solve(order[at], systems.x + at * systems.width);
    });
  }
};

/// A block each.
struct DualRowsByBlocks {
  static constexpr int kThreads = kSystemThreads;
  DualSystems systems;
  DualShape shape;
  const std::int32_t* order;
  std::int64_t n;

  static std::int64_t blocks(std::int64_t n) { return n; }
  static std::size_t shared_bytes(const DualShape& shape) { return shape.bytes(); }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t at = block.x();
    DualRow row(BlockTeam<Block>{block}, systems, shape, static_cast<float*>(static_cast<void*>(block.shared())));
    row.solve(order[at], systems.x + at * systems.width);
  }
};

}  // namespace recfuse::cuda
