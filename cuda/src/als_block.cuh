// Rows by rounds over blocks of their unknowns (iALS++): what entries are predicted to be is kept, and a block's system
// is that of the errors.
#pragma once

#include <cmath>
#include <cstdint>

#include "als_rows.cuh"

namespace recfuse::cuda {

constexpr int kBlockUnknowns = 64;

/// The systems of a side, in the coordinates of the half-step, as CgSystems.
struct BlockSystems {
  RowsOnDevice rows;
  const float* features;  // (others, width)
  int size, width;
  const float* diagonal;    // (width): that of the Gram matrix; null: 0
  const double* penalties;  // of every row, or one for all
  bool one_penalty;
  float* x;          // (rows, width)
  float* predicted;  // of every entry

  RECFUSE_DEVICE float shared_diagonal(std::int64_t row, int unknown) const {
    const auto penalty = static_cast<float>(penalties[one_penalty ? 0 : row]);
    return diagonal == nullptr ? penalty : penalty + diagonal[unknown];
  }
};

/// What System adds up for the block that begins at `first`.
struct BlockEntries {
  BlockSystems systems;
  int first;

  RECFUSE_DEVICE float feature(std::int64_t other, int column) const {
    return systems.features[other * systems.width + first + column];
  }
  RECFUSE_DEVICE std::int64_t other(std::int64_t entry) const { return systems.rows.other(entry); }
  template <class Real>
  RECFUSE_DEVICE void terms(std::int64_t entry, Real& weight, Real& target) const {
    systems.rows.terms(entry, weight, target);
    target = multiply_add(-weight, static_cast<Real>(systems.predicted[entry]), target);
  }
};

/// Adds to the predictions of entries [from, to) what value(column) says of columns [first, first + n); or they are
/// that. Eight lanes read an entry.
template <class Block, class Value>
RECFUSE_DEVICE void predict(Block& block, const BlockSystems& systems, int n_warps, std::int64_t from, std::int64_t to,
                            int first, int n, bool add, const Value& value) {
  constexpr int kLanes = 8, kGroups = kWarp / kLanes;
  typename Block::template PerThread<float> sums(block);
  block.each_warp([&](int warp) {
    for (std::int64_t base = from + warp * kGroups; base < to; base += n_warps * kGroups) {
      block.each_lane(warp, [&](int thread, int lane) {
        const std::int64_t entry = base + lane / kLanes;
        sums[thread] = 0;
        if (entry >= to) return;
        const float* const features = systems.features + systems.rows.other(entry) * systems.width + first;
        for (int c = lane % kLanes; c < n; c += kLanes)
          sums[thread] = multiply_add(features[c], value(c), sums[thread]);
      });
      block.template add_across<1, kLanes / 2>(warp, [&](int thread) -> float& { return sums[thread]; });
      block.each_lane(warp, [&](int thread, int lane) {
        const std::int64_t entry = base + lane / kLanes;
        if (entry >= to || lane % kLanes != 0) return;
        systems.predicted[entry] = add ? systems.predicted[entry] + sums[thread] : sums[thread];
      });
    }
  });
}

/// Moves a block of the unknowns of rows, a thread block a row at a time.
struct MoveBlocks {
  static constexpr int kThreads = kSystemThreads, kWarps = kThreads / kWarp;
  using Memory = RowMemory<float, true, 0>;
  BlockSystems systems;
  int first;          // unknown
  SystemShape shape;  // of the block
  const std::int32_t* order;
  std::int64_t n;
  int n_blocks;
  const float* parts;               // null: rows are built from their entries
  const std::int64_t* part_bounds;  // of row at in `order`
  float* moves;                     // (n, kBlockUnknowns), where rows come in parts: by how much

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    for (std::int64_t at = block.x(); at < n; at += n_blocks) move(block, at);
  }

 private:
  template <class Block>
  RECFUSE_DEVICE void move(Block& block, std::int64_t at) const {
    const std::int64_t row = order[at], from = systems.rows.indptr[row], to = systems.rows.indptr[row + 1];
    float* const x = systems.x + row * systems.width + first;
    if (from == to) {
      block.each_thread([&](int thread) {
        if (thread < shape.size) x[thread] = 0;
      });
      return;
    }
    System<float> system = Memory::system(shape, block.shared(), nullptr);
    if (parts == nullptr && first == 0) {
      predict(block, systems, kWarps, from, to, 0, systems.size, false, [&](int column) { return x[column]; });
    }
    const auto of_parts = [&](int element) {
      double sum = 0;
      for (std::int64_t part = part_bounds[at]; part < part_bounds[at + 1]; ++part) {
        sum += parts[part * shape.elements() + element];
      }
      return static_cast<float>(sum);
    };
    const auto element = [&](int r, int c) {
      const float sum = parts == nullptr ? 0.0F : of_parts(r * shape.stride() + c);
      if (r != c) return sum;
      return sum + (r < shape.size ? systems.shared_diagonal(row, first + r) : 1.0F);
    };
    const auto right = [&](int c) {
      const float sum = parts == nullptr ? 0.0F : of_parts(shape.padded() * shape.stride() + c);
      return c < shape.size ? multiply_add(-systems.shared_diagonal(row, first + c), x[c], sum) : sum;
    };
    system.begin(block, 0, element, right);
    if (parts == nullptr) system.add(block, BlockEntries{systems, first}, from, to);
    constexpr float kLeastPivot = 4e-6F;  // as of the whole system
    if (system.factor(block, kLeastPivot)) system.substitute(block);
    const bool solved = system.status() == System<float>::kSolved;
    const auto move_of = [&](int c) { return system.solution(c); };
    if (solved && parts == nullptr && first + shape.size < systems.size) {
      predict(block, systems, kWarps, from, to, first, shape.size, true, move_of);
    }
    block.each_thread([&](int thread) {
      if (thread >= shape.size) return;
      // A row that has no solution becomes one that is not finite.
      const float by = solved ? move_of(thread) : NAN;
      x[thread] += by;
      if (parts != nullptr) moves[at * kBlockUnknowns + thread] = by;
    });
  }
};

/// Predictions of the entries of parts: from the rows as they are, or what a move changes.
struct PredictParts {
  static constexpr int kThreads = kSystemThreads;
  BlockSystems systems;
  const Part* parts;
  const std::int32_t* places;  // of the part's row in `order`
  const std::int32_t* order;
  int first, n;        // unknowns
  const float* moves;  // null: all of the row

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const Part part = parts[block.x()];
    const std::int64_t place = places[block.x()];
    const float* const vector = moves == nullptr ? systems.x + static_cast<std::int64_t>(order[place]) * systems.width
                                                 : moves + place * kBlockUnknowns;
    predict(block, systems, kThreads / kWarp, part.first, part.last, first, n, moves != nullptr,
            [&](int column) { return vector[column]; });
  }
};

}  // namespace recfuse::cuda
