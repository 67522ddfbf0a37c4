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
    std::int64_t wanted;         // how many of those with this prefix are still to be counted
    std::int32_t bins[kBins];
    std::int32_t kept[kThreads];
  };

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
        shared.wanted = k;
      }
    });
    if (n >= k) find_threshold(block, shared, lower, n, q);
    keep(block, shared, lower, upper, ids, n, q);
  }

 private:
  /// Radix selection, from the highest eight bits of the order-preserving integers down.
  template <class Block>
  RECFUSE_DEVICE void find_threshold(Block& block, Shared& shared, const float* lower, int n, std::int64_t q) const {
    for (int shift = 24; shift >= 0; shift -= 8) {
      block.each_thread([&](int thread) {
        for (int bin = thread; bin < kBins; bin += kThreads) shared.bins[bin] = 0;
      });
      block.each_thread([&](int thread) {
        for (int i = thread; i < n; i += kThreads) {
          const std::uint32_t bits = score_bits(lower[i]);
          if ((bits & shared.mask) == shared.prefix) block.add_atomically(&shared.bins[bits >> shift & 255U], 1);
        }
      });
      block.each_thread([&](int thread) {
        if (thread != 0) return;
        int bin = kBins - 1;
        while (shared.bins[bin] < shared.wanted) shared.wanted -= shared.bins[bin--];
        shared.prefix |= static_cast<std::uint32_t>(bin) << shift;
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
    block.each_thread([&](int thread) {
      if (thread != 0) return;
      int sum = 0;
      for (int i = 0; i < kThreads; ++i) {
        const int here = shared.kept[i];
        shared.kept[i] = sum;
        sum += here;
      }
      candidates.counts[q] = sum;
    });
    block.each_thread([&](int thread) {
      std::int64_t to = q * candidates.capacity + shared.kept[thread];
      each_kept(thread, [&](int i) {
        candidates.lower[to] = lower[i];
        candidates.upper[to] = upper[i];
        candidates.ids[to++] = ids[i];
      });
    });
  }
};

}  // namespace recfuse::cuda
