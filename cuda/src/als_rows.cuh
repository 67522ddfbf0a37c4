// The kernels of a half-step: sums over parts of long rows and of tables, and the solution of rows.
#pragma once

#include <cstdint>
#include <type_traits>

#include "als_products.cuh"

namespace recfuse::cuda {

/// Entries [first, last), a block's work. Where the cuts are depends on the entries alone, and parts are added in their
/// order: no result depends on which block comes first.
struct Part {
  std::int64_t first, last;
};

/// What a block needs of shared memory: a matrix, where it lies there, or the strips that it is made from before, on
/// the matrix units; and the rest of a system.
template <class Real, bool kInShared, int kSquares>
struct RowMemory {
  static RECFUSE_BOTH std::size_t front_bytes(const SystemShape& shape) {
    const std::size_t strips = kSquares > 0 ? StripShape{shape}.bytes() : 0;
    if constexpr (kInShared) {
      const std::size_t matrix = System<Real>::matrix_bytes(shape);
      return matrix > strips ? matrix : strips;
    } else {
      return strips;
    }
  }
  static RECFUSE_BOTH std::size_t bytes(const SystemShape& shape) {
    return front_bytes(shape) + System<Real>::other_bytes(shape, kSquares == 0);
  }
  /// `elsewhere`: of a matrix that is not in shared memory.
  static RECFUSE_DEVICE System<Real> system(const SystemShape& shape, char* shared, Real* elsewhere) {
    return {shape, kInShared ? reinterpret_cast<Real*>(shared) : elsewhere, shared + front_bytes(shape)};
  }
};

/// A and b of parts, in float32.
template <bool kInShared, class From = RowsOnDevice>
struct BuildParts {
  static constexpr int kThreads = kSystemThreads;
  using Memory = RowMemory<float, kInShared, 0>;
  From rows;
  SystemShape shape;
  const Part* parts;
  float* sums;  // (parts, elements): lower tiles and b

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    float* const out = sums + static_cast<std::int64_t>(block.x()) * shape.elements();
    System<float> system = Memory::system(shape, block.shared(), out);
    system.begin(block, 0, [](int, int) { return 0.0F; }, [](int) { return 0.0F; });
    system.add(block, rows, parts[block.x()].first, parts[block.x()].last);
    block.each_thread([&](int thread) {
      if (thread == 0) out[shape.least_place()] = 0;
      if constexpr (kInShared) {
        for (int t = thread; t < lower_tiles(shape.tiles()); t += kThreads) {
          const TilePlace place = tile_place(t);
          const int at = place.row * kTile * shape.stride() + place.column * kTile;
          for (int i = 0; i < kTile; ++i) {
            store_quad(out + at + i * shape.stride(), load_quad(system.matrix() + at + i * shape.stride()));
          }
        }
        const int rhs = shape.padded() * shape.stride();
        for (int c = thread; c < shape.padded(); c += kThreads) out[rhs + c] = system.matrix()[rhs + c];
      }
    });
  }
};

/// The same on the matrix units.
template <int kSquares>
struct MultiplyParts {
  static constexpr int kThreads = kSystemThreads;
  static constexpr int kBlocksAtOnce = blocks_at_once(kSquares);
  RowsOnDevice rows;
  SystemShape shape;
  const Part* parts;
  float* sums;  // as of BuildParts

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    float* const out = sums + static_cast<std::int64_t>(block.x()) * shape.elements();
    Products<kSquares> products(shape, rows, block.shared());
    products.sum(
        block, parts[block.x()].first, parts[block.x()].last,
        [&](int r, int c, float sum) { out[r * shape.stride() + c] = sum; },
        [&](int c, float sum) { out[shape.padded() * shape.stride() + c] = sum; },
        [&](float least) { out[shape.least_place()] = least; });
  }
};

/// Adds parts to a sum in float64, one after the other.
struct AddParts {
  static constexpr int kThreads = 128;
  SystemShape shape;
  const float* parts;
  std::int64_t n_parts;
  bool begins;     // with 0, not with what is there
  double* sum;     // (elements)
  float* rounded;  // the same

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread) {
      const int index = block.x() * kThreads + thread;
      if (index >= lower_tiles(shape.tiles()) * kTile * kTile) return;
      const TilePlace place = tile_place(index / (kTile * kTile));
      const int row = place.row * kTile + index % (kTile * kTile) / kTile,
                column = place.column * kTile + index % kTile;
      const std::int64_t at = static_cast<std::int64_t>(row) * shape.stride() + column;
      double total = begins ? 0 : sum[at];
      for (std::int64_t part = 0; part < n_parts; ++part) total += parts[part * shape.elements() + at];
      sum[at] = total;
      rounded[at] = static_cast<float>(total);
    });
  }
};

/// Rows that could not be solved, and why. Their order is that in which blocks came; none depends on another.
struct UnsolvedRows {
  std::int32_t* count;
  std::int32_t* rows;
  std::int32_t* reasons;  // or null

  template <class Block>
  RECFUSE_DEVICE void add(Block& block, std::int32_t row, std::int32_t reason) const {
    const int place = block.add_atomically(count, 1);
    rows[place] = row;
    if (reasons != nullptr) reasons[place] = reason;
  }
};

/// Before a half-step: both counts of failed rows.
struct ClearCounts {
  static constexpr int kThreads = 32;
  std::int32_t* counts;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread) {
      if (thread < 2) counts[thread] = 0;
    });
  }
};

/// Solves rows exactly, a block a row at a time. `kSquares` above 0: built on the matrix units, of entries alone.
template <class Real, bool kInShared, int kSquares>
struct SolveRows {
  static constexpr int kThreads = kSystemThreads;
  static constexpr int kBlocksAtOnce = blocks_at_once(kSquares);
  using Memory = RowMemory<Real, kInShared, kSquares>;
  RowsOnDevice rows;
  SystemShape shape;
  const std::int32_t* order;
  std::int64_t n;
  const std::int32_t* n_there;  // of them so many alone, or null
  const std::int32_t* stop;     // above 0: nothing is solved; or null
  int n_blocks;
  const Real* gram;             // (elements), or null
  const double* gram_of_parts;  // the same, to which parts are added
  const double* penalties;      // of every row, or one for all
  bool one_penalty;
  Real least_pivot;
  const float* parts;               // null: rows are built from their entries
  const std::int64_t* part_bounds;  // of row at in `order`
  Real* scratch;                    // (blocks, elements), where the matrix is not in shared memory
  float* table;                     // (rows, size)
  UnsolvedRows failed;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    if (stop != nullptr && *stop > 0) return;
    const std::int64_t end = n_there == nullptr ? n : *n_there;
    for (std::int64_t at = block.x(); at < end; at += n_blocks) solve(block, at);
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
    System<Real> system = Memory::system(shape, block.shared(), matrix);
    const auto penalty = static_cast<Real>(penalties[one_penalty ? 0 : row]);
    if constexpr (kSquares > 0) {
      multiply(block, system, first, last, penalty);
    } else {
      build(block, system, at, penalty);
      if (parts == nullptr) system.add(block, rows, first, last);
    }
    if (system.factor(block, least_pivot)) system.substitute(block);
    const int status = system.status();
    block.each_thread([&](int thread) {
      if (status == System<Real>::kSolved) {
        for (int j = thread; j < shape.size; j += kThreads) out[j] = static_cast<float>(system.solution(j));
      } else if (thread == 0) {
        failed.add(block, row, status);
      }
    });
  }

  /// What all rows share, and the penalty.
  RECFUSE_DEVICE Real begun(int r, int c, Real shared, Real penalty) const {
    if (r != c) return shared;
    return shared + (r < shape.size ? penalty : Real{1});
  }
  RECFUSE_DEVICE Real of_gram(std::int64_t place) const { return gram == nullptr ? Real{0} : gram[place]; }

  template <class Block>
  RECFUSE_DEVICE void multiply(Block& block, System<Real>& system, std::int64_t first, std::int64_t last,
                               Real penalty) const {
    Products<kSquares> products(shape, rows, block.shared());
    products.sum(
        block, first, last,
        [&](int r, int c, float sum) {
          const Real shared = of_gram(static_cast<std::int64_t>(r) * shape.stride() + c);
          system.put(r, c, begun(r, c, shared, penalty) + sum);
        },
        [&](int c, float sum) { system.put_right(c, sum); }, [&](float least) { system.begin(least); });
  }

  template <class Block>
  RECFUSE_DEVICE void build(Block& block, System<Real>& system, std::int64_t at, Real penalty) const {
    const auto of_parts = [&](std::int64_t element) {
      double sum = 0;
      for (std::int64_t part = part_bounds[at]; part < part_bounds[at + 1]; ++part) {
        sum += parts[part * shape.elements() + element];
      }
      return sum;
    };
    const auto element = [&](int r, int c) {
      const std::int64_t place = static_cast<std::int64_t>(r) * shape.stride() + c;
      if (parts == nullptr) return begun(r, c, of_gram(place), penalty);
      const double shared = (gram_of_parts == nullptr ? 0.0 : gram_of_parts[place]) + of_parts(place);
      return begun(r, c, static_cast<Real>(shared), penalty);
    };
    const auto right = [&](int c) {
      return parts == nullptr ? Real{0} : static_cast<Real>(of_parts(shape.padded() * shape.stride() + c));
    };
    const float least = parts == nullptr ? 0.0F : static_cast<float>(of_parts(shape.least_place()));
    system.begin(block, least, element, right);
  }
};

}  // namespace recfuse::cuda
