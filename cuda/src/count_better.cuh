// Ranks of given pairs without lists: what is better than each is counted, by the screen where its bound tells, and by
// canonical scores where it does not.
#pragma once

#include <cmath>
#include <cstdint>

#include "block.cuh"
#include "candidates.cuh"
#include "screen.cuh"
#include "vectors.cuh"

namespace recfuse::cuda {

/// Pairs of a batch, by its queries, and what was counted of the items that their queries may get.
struct CountedPairs {
  const std::int64_t* indptr = nullptr;  // (queries + 1): from anywhere
  const std::int32_t* ids = nullptr;
  const float* scores = nullptr;     // NaN: not ranked
  std::int32_t* better = nullptr;    // items that score more
  std::int32_t* tied = nullptr;      // that score the same, the pair's own among them
  std::int32_t* before = nullptr;    // of these the ones with smaller ids
  std::int32_t* n_ranked = nullptr;  // (queries)

  RECFUSE_DEVICE std::int64_t begin(std::int64_t q) const { return indptr[q] - indptr[0]; }

  template <class Block>
  RECFUSE_DEVICE void count(const Block& block, std::int64_t pair, std::int32_t id, float score, int times) const {
    if (score > scores[pair]) block.add_atomically(better + pair, times);
    if (score != scores[pair]) return;
    block.add_atomically(tied + pair, times);
    if (id < ids[pair]) block.add_atomically(before + pair, times);
  }
};

/// The scan that counts. What it leaves open for some pair becomes a candidate: its interval holds that pair's score.
template <class Base>
struct CountingScreen : Base {
  CountedPairs pairs;
  std::int32_t* better;  // (pairs): of the tiles of this scan

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    this->scan_tiles(block, *this);
  }

  template <class Block, class Rows, class PerThread>
  RECFUSE_DEVICE void collect(Block& block, std::int64_t tile, const Rows& rows, PerThread& sums) const {
    this->each_row(block, sums, [&](int row, const auto& each_sum) {
      // No threshold has been set: what is not ranked, or not screened, is infinite.
      if (rows.least[row] == INFINITY) return;
      const std::int64_t q = std::int64_t{block.x()} * Base::kQueries + row;
      float lower[Base::kSumsOfRow], upper[Base::kSumsOfRow];
      each_sum([&](int i, int column, float sum) {
        const bool there = this->scan.tiles.ids[tile * kTileItems + column] >= 0;
        lower[i] = there ? static_cast<float>(sum * rows.scale[row] - rows.bound[row]) : -INFINITY;
        upper[i] = there ? static_cast<float>(sum * rows.scale[row] + rows.bound[row]) : -INFINITY;
      });
      std::uint32_t open = 0;
      for (std::int64_t pair = pairs.begin(q); pair < pairs.begin(q + 1); ++pair) {
        const float score = pairs.scores[pair];
        int n = 0;
        RECFUSE_UNROLL
        for (int i = 0; i < Base::kSumsOfRow; ++i) {
          const bool above = lower[i] > score;
          n += above ? 1 : 0;
          open |= (!above && upper[i] >= score ? 1U : 0U) << i;
        }
        if (n != 0) block.add_atomically(better + pair, n);
      }
      if (open == 0) return;
      each_sum([&](int i, int column, float) {
        const std::int32_t id = this->scan.tiles.ids[tile * kTileItems + column];
        if ((open >> i & 1U) == 0 || id < 0) return;
        const Candidates& candidates = this->scan.candidates;
        const int slot = candidates.reserve(block, q);
        if (slot >= candidates.capacity) return;
        const std::int64_t at = q * candidates.capacity + slot;
        candidates.lower[at] = lower[i];
        candidates.upper[at] = upper[i];
        candidates.ids[at] = id;
      });
    });
  }
};

/// Of a block of items what the scan has not counted: what it left open and could not judge; all of them for a query
/// with more of those than there is room for, or without a screen. What is excluded is taken back.
struct CountRest {
  static constexpr int kThreads = 256;
  Candidates candidates;  // counts null: nothing was screened
  Items items;
  Queries queries;
  Filters filters;
  const std::int32_t* irregular;
  std::int32_t n_irregular;
  const std::int32_t* n_regular;  // (groups): of the block
  const std::int32_t* screened;   // (pairs): what the scan has counted
  CountedPairs pairs;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t q = block.x(), begin = pairs.begin(q), end = pairs.begin(q + 1);
    const bool known = candidates.counts != nullptr && candidates.counts[q] <= candidates.capacity;
    block.each_thread([&](int thread) {
      if (!known) return;
      for (std::int64_t pair = begin + thread; pair < end; pair += kThreads) pairs.better[pair] += screened[pair];
      for (int g = thread; g < items.n_groups; g += kThreads) {
        if (queries.factor(q, g, items.n_groups) != 0) block.add_atomically(pairs.n_ranked + q, n_regular[g]);
      }
    });
    block.each_thread([&](int thread) {
      for (int i = thread; known && i < candidates.counts[q]; i += kThreads) settle(block, q, i);
      const std::int64_t n = known ? n_irregular : items.n;
      for (std::int64_t i = thread; i < n; i += kThreads) {
        count(block, q, known ? items.row_of(irregular[i]) : i, 1);
      }
      if (filters.exclude_indptr == nullptr) return;
      const std::int64_t first = filters.exclude_indptr[q] - filters.exclude_indptr[0];
      const std::int64_t n_excluded = filters.exclude_indptr[q + 1] - filters.exclude_indptr[q];
      for (std::int64_t i = thread; i < n_excluded; i += kThreads) {
        const std::int64_t row = items.row_of(filters.exclude[first + i]);
        if (row >= 0) count(block, q, row, -1);
      }
    });
  }

 private:
  /// An item of which the scan has counted for some pairs; for the others its interval holds their score.
  template <class Block>
  RECFUSE_DEVICE void settle(const Block& block, std::int64_t q, int i) const {
    const std::int64_t at = q * candidates.capacity + i;
    const std::int32_t id = candidates.ids[at];
    const float value = score(items, queries, q, items.row_of(id), nullptr);
    const float lower = candidates.lower[at], upper = candidates.upper[at];
    for (std::int64_t pair = pairs.begin(q); pair < pairs.begin(q + 1); ++pair) {
      const float known = pairs.scores[pair];
      if (!(lower > known) && upper >= known) pairs.count(block, pair, id, value, 1);
    }
  }

  template <class Block>
  RECFUSE_DEVICE void count(const Block& block, std::int64_t q, std::int64_t row, int times) const {
    const float value = score(items, queries, q, row, nullptr);
    if (value != value) return;  // is not ranked
    block.add_atomically(pairs.n_ranked + q, times);
    for (std::int64_t pair = pairs.begin(q); pair < pairs.begin(q + 1); ++pair) {
      pairs.count(block, pair, items.id(row), value, times);
    }
  }
};

}  // namespace recfuse::cuda
