// Items that may be among the k best of a query, as intervals that hold their scores.
#pragma once

#include <cmath>
#include <cstdint>

#include "block.cuh"
#include "vectors.cuh"

namespace recfuse::cuda {

struct Candidates {
  int capacity;          // of a query
  float* lower;          // (queries, capacity)
  float* upper;          // (queries, capacity)
  std::int32_t* ids;     // (queries, capacity)
  std::int32_t* counts;  // (queries): above the capacity, some were lost and the query must be answered otherwise
  float* thresholds;     // (queries): k scores are known to reach it; -inf at first

  template <class Block>
  RECFUSE_DEVICE void push(const Block& block, std::int64_t q, std::int32_t id, double value, double bound) const {
    write(q, reserve(block, q), id, value, bound);
  }
  /// The two halves of push(), for who has several at once.
  template <class Block>
  RECFUSE_DEVICE int reserve(const Block& block, std::int64_t q) const {
    return block.add_atomically(counts + q, 1);
  }
  RECFUSE_DEVICE void write(std::int64_t q, int slot, std::int32_t id, double value, double bound) const {
    if (slot >= capacity) return;
    const std::int64_t at = q * capacity + slot;
    lower[at] = static_cast<float>(value - bound);
    upper[at] = static_cast<float>(value + bound);
    ids[at] = id;
  }
};

/// After a pass: the k-th largest lower end becomes the threshold, and what cannot reach it goes.
struct RaiseThresholds {
  static constexpr int kThreads = 256;
  static constexpr int kBins = 256;
  Candidates candidates;
  std::int64_t k;

  /// What threads of a block share.
  struct Shared {
    std::uint32_t prefix, mask;  // of the k-th largest, as far as it is known
    std::int32_t wanted[2];      // how many of those with this prefix are still to be counted; the digits take turns
    std::int32_t bins[kBins];    // of a digit, the largest first
    std::int32_t kept[kThreads];
  };
  static_assert(kBins == kThreads);

  RECFUSE_BOTH static std::size_t shared_bytes(int capacity) {
    return sizeof(Shared) + static_cast<std::size_t>(capacity) * 3 * sizeof(float);
  }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t q = block.x();
    const int n = candidates.counts[q];
    if (n > candidates.capacity) return;
    auto& shared = *reinterpret_cast<Shared*>(block.shared());
    auto* const lower = reinterpret_cast<float*>(block.shared() + sizeof(Shared));
    float* const upper = lower + candidates.capacity;
    auto* const ids = reinterpret_cast<std::int32_t*>(upper + candidates.capacity);
    const std::int64_t row = q * candidates.capacity;
    block.each_thread([&](int thread) {
      for (int i = thread; i < n; i += kThreads) {
        lower[i] = candidates.lower[row + i];
        upper[i] = candidates.upper[row + i];
        ids[i] = candidates.ids[row + i];
      }
      if (thread == 0) {
        shared.prefix = shared.mask = 0;
        shared.wanted[0] = static_cast<std::int32_t>(k);
      }
    });
    if (n >= k) find_threshold(block, shared, lower, n, q);  // so k is no more than the capacity
    keep(block, shared, lower, upper, ids, n, q);
  }

 private:
  /// Running sums of `values`, in steps that take all threads; one that adds alone takes ten times as long.
  template <class Block>
  RECFUSE_DEVICE void add_up(Block& block, std::int32_t* values, std::int32_t* other) const {
    for (int apart = 1; apart < kThreads; apart *= 2) {
      block.each_thread(
          [&](int thread) { other[thread] = values[thread] + (thread >= apart ? values[thread - apart] : 0); });
      std::int32_t* const summed = other;
      other = values;
      values = summed;
    }
  }
  static constexpr bool kEndsWhereItBegan = kThreads == 256;  // after an even number of steps
  static_assert(kEndsWhereItBegan);

  /// Radix selection, from the highest eight bits of the order-preserving integers down.
  template <class Block>
  RECFUSE_DEVICE void find_threshold(Block& block, Shared& shared, const float* lower, int n, std::int64_t q) const {
    for (int digit = 0; digit < 4; ++digit) {
      const int shift = 24 - 8 * digit;
      block.each_thread([&](int thread) { shared.bins[thread] = 0; });
      block.each_thread([&](int thread) {
        for (int i = thread; i < n; i += kThreads) {
          const std::uint32_t bits = score_bits(lower[i]);
          if ((bits & shared.mask) != shared.prefix) continue;
          block.add_atomically(&shared.bins[kBins - 1 - (bits >> shift & 255U)], 1);
        }
      });
      add_up(block, shared.bins, shared.kept);
      block.each_thread([&](int thread) {
        const std::int32_t above = thread > 0 ? shared.bins[thread - 1] : 0, wanted = shared.wanted[digit % 2];
        if (above >= wanted || shared.bins[thread] < wanted) return;  // for all but one
        shared.wanted[(digit + 1) % 2] = wanted - above;
        shared.prefix |= static_cast<std::uint32_t>(kBins - 1 - thread) << shift;
        shared.mask |= 255U << shift;
      });
    }
    block.each_thread([&](int thread) {
      const float found = key_score(static_cast<std::uint64_t>(shared.prefix) << 32);
      if (thread == 0) candidates.thresholds[q] = std::fmax(candidates.thresholds[q], found);
    });
  }

  template <class Block>
  RECFUSE_DEVICE void keep(Block& block, Shared& shared, const float* lower, const float* upper,
                           const std::int32_t* ids, int n, std::int64_t q) const {
    const int run = (n + kThreads - 1) / kThreads;  // of neighbours, one thread's
    const float threshold = candidates.thresholds[q];
    const auto each_kept = [&](int thread, auto&& f) {
      for (int i = thread * run; i < n && i < (thread + 1) * run; ++i) {
        if (upper[i] >= threshold) f(i);
      }
    };
    block.each_thread([&](int thread) {
      shared.kept[thread] = 0;
      each_kept(thread, [&](int) { ++shared.kept[thread]; });
    });
    add_up(block, shared.kept, shared.bins);
    block.each_thread([&](int thread) {
      if (thread == 0) candidates.counts[q] = shared.kept[kThreads - 1];
      std::int64_t to = q * candidates.capacity + (thread > 0 ? shared.kept[thread - 1] : 0);
      each_kept(thread, [&](int i) {
        candidates.lower[to] = lower[i];
        candidates.upper[to] = upper[i];
        candidates.ids[to++] = ids[i];
      });
    });
  }
};

}  // namespace recfuse::cuda
