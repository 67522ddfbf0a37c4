// The kernels of a half-step: sums over parts of long rows and of tables, and the solution of rows.
#pragma once

#include <cstdint>
#include <type_traits>

#include "als_system.cuh"

namespace recfuse::cuda {

/// Entries [first, last), a block's work. Where the cuts are depends on the entries alone, and parts are added in their
/// order: no result depends on which block comes first.
struct Part {
  std::int64_t first, last;
};

/// A and b of parts, in float32.
template <bool kInShared>
struct BuildParts {
  static constexpr int kThreads = kSystemThreads;
  RowsOnDevice rows;
  SystemShape shape;
  const Part* parts;
  float* sums;  // (parts, elements): lower tiles and b

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    float* const out = sums + static_cast<std::int64_t>(block.x()) * shape.elements();
    System<float> system(shape, block.shared(), kInShared ? nullptr : out);
    system.begin(block, [](int, int) { return 0.0F; }, [](int) { return 0.0F; });
    system.add(block, rows, parts[block.x()].first, parts[block.x()].last);
    if (!kInShared) return;
    block.each_thread([&](int thread) {
      for (int t = thread; t < lower_tiles(shape.tiles()); t += kThreads) {
        const TilePlace place = tile_place(t);
        const int at = place.row * kTile * shape.stride() + place.column * kTile;
        for (int i = 0; i < kTile; ++i) {
          store_quad(out + at + i * shape.stride(), load_quad(system.matrix() + at + i * shape.stride()));
        }
      }
      const int rhs = shape.padded() * shape.stride();
      for (int c = thread; c < shape.padded(); c += kThreads) out[rhs + c] = system.matrix()[rhs + c];
    });
  }
};

/// Adds parts to a sum in float64, one after the other.
struct AddParts {
  static constexpr int kThreads = 128;
  SystemShape shape;
  const float* parts;
  std::int64_t n_parts;
  double* sum;  // (elements)

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread) {
      const int index = block.x() * kThreads + thread;
      if (index >= lower_tiles(shape.tiles()) * kTile * kTile) return;
      const TilePlace place = tile_place(index / (kTile * kTile));
      const int row = place.row * kTile + index % (kTile * kTile) / kTile,
                column = place.column * kTile + index % kTile;
      const std::int64_t at = static_cast<std::int64_t>(row) * shape.stride() + column;
      double total = sum[at];
      for (std::int64_t part = 0; part < n_parts; ++part) total += parts[part * shape.elements() + at];
      sum[at] = total;
    });
  }
};

/// Rows that could not be solved, and why. Their order is that in which blocks came; none depends on another.
struct FailedRows {
  std::int32_t* count;
  std::int32_t* rows;
  std::int32_t* reasons;
};

/// Solves rows exactly, a block a row at a time.
template <class Real, bool kInShared>
struct SolveRows {
  static constexpr int kThreads = kSystemThreads;
  RowsOnDevice rows;
  SystemShape shape;
  const std::int32_t* order;
  std::int64_t n;
  int n_blocks;
  const double* gram;       // (elements), or null
  const double* penalties;  // of every row, or one for all
  bool one_penalty;
  Real least_pivot;
  const float* parts;               // null: rows are built from their entries
  const std::int64_t* part_bounds;  // of row at in `order`
  Real* scratch;                    // (blocks, elements), where the matrix is not in shared memory
  float* table;                     // (rows, size)
  FailedRows failed;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    for (std::int64_t at = block.x(); at < n; at += n_blocks) solve(block, at);
  }

 private:
  template <class Block>
  RECFUSE_DEVICE void solve(Block& block, std::int64_t at) const {
    const std::int32_t row = order[at];
    float* const out = table + static_cast<std::int64_t>(row) * shape.size;
    const std::int64_t first = rows.indptr[row], last = rows.indptr[row + 1];
    if (first == last) {
      block.each_thread([&](int thread) {
        for (int j = thread; j < shape.size; j += kThreads) out[j] = 0.0F;
      });
      return;
    }
    Real* const matrix = kInShared ? nullptr : scratch + static_cast<std::int64_t>(block.x()) * shape.elements();
    System<Real> system(shape, block.shared(), matrix);
    build(block, system, at, row);
    if (parts == nullptr) system.add(block, rows, first, last);
    if (system.factor(block, least_pivot)) system.substitute(block);
    const int status = system.status();
    block.each_thread([&](int thread) {
      if (status == System<Real>::kSolved) {
        for (int j = thread; j < shape.size; j += kThreads) out[j] = static_cast<float>(system.solution(j));
      } else if (thread == 0) {
        const int place = block.add_atomically(failed.count, 1);
        failed.rows[place] = row;
        failed.reasons[place] = status;
      }
    });
  }

  /// What the row shares with others, its penalty, and the parts of it.
  template <class Block>
  RECFUSE_DEVICE void build(Block& block, System<Real>& system, std::int64_t at, std::int32_t row) const {
    const auto penalty = static_cast<Real>(penalties[one_penalty ? 0 : row]);
    const auto of_parts = [&](std::int64_t element) {
      double sum = 0;
      for (std::int64_t part = part_bounds[at]; part < part_bounds[at + 1]; ++part) {
        sum += parts[part * shape.elements() + element];
      }
      return sum;
    };
    const auto element = [&](int r, int c) {
      const std::int64_t place = static_cast<std::int64_t>(r) * shape.stride() + c;
      double shared = gram == nullptr ? 0.0 : gram[place];
      if (parts != nullptr) shared += of_parts(place);
      if (r != c) return static_cast<Real>(shared);
      return static_cast<Real>(shared) + (r < shape.size ? penalty : Real{1});
    };
    const auto right = [&](int c) {
      return parts == nullptr ? Real{0} : static_cast<Real>(of_parts(shape.padded() * shape.stride() + c));
    };
    system.begin(block, element, right);
  }
};

}  // namespace recfuse::cuda
