// The k largest keys of many, collected by a block.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "block.cuh"
#include "rank.cuh"

namespace recfuse::cuda {

/// Keys that may be among the k largest. When there is no room for another round the k largest stay, and the least of
/// them is what others must exceed: what comes out does not depend on the order in which threads push.
/// With `slack`, scores are off by half of it, and all within it below the k-th stay; where these are too many, none.
class BestKeys {
 public:
  static constexpr int kRound = 1'024;  // pushes between two calls of settle(), at most

  struct Shared {
    std::uint64_t least;  // keys up to here cannot enter
    int count;
    bool gave_up;
  };

  /// A power of two, as sort_keys() wants it.
  RECFUSE_BOTH static std::int64_t capacity(std::int64_t k) { return power_of_two(k + k / 4 + kRound); }

  RECFUSE_DEVICE BestKeys(Shared& shared, std::uint64_t* keys, std::int64_t k, double slack = 0)
      : shared_(shared), keys_(keys), k_(k), capacity_(capacity(k)), slack_(slack) {}

  template <class Block>
  RECFUSE_DEVICE void clear(Block& block) {
    block.each_thread([&](int thread) {
      if (thread == 0) shared_ = {0, 0, false};
    });
  }
  /// That scores must reach, or exceed: -inf at first.
  RECFUSE_DEVICE float threshold() const { return shared_.least == 0 ? -INFINITY : key_score(shared_.least); }
  /// Within a phase: whether the key may enter, which then is pushed.
  RECFUSE_DEVICE bool wants(std::uint64_t key) const { return key > shared_.least; }
  template <class Block>
  RECFUSE_DEVICE void push(const Block& block, std::uint64_t key) const {
    keys_[block.add_atomically(&shared_.count, 1)] = key;
  }
  /// Between phases: makes room for another round.
  template <class Block>
  RECFUSE_DEVICE void settle(Block& block) {
    if (seen_count(block) + kRound <= capacity_ || sort(block) + kRound <= capacity_) return;
    block.each_thread([&](int thread) {
      if (thread == 0) shared_ = {~std::uint64_t{0}, 0, true};
    });
  }
  /// The k largest, or what may be among them, come first, falling; returns how many there are.
  template <class Block>
  RECFUSE_DEVICE std::int64_t sort(Block& block) {
    const std::int64_t n = seen_count(block), size = power_of_two(n);
    block.each_thread([&](int thread) {
      for (std::int64_t i = n + thread; i < size; i += block.n_threads()) keys_[i] = 0;
    });
    sort_keys(block, keys_, size);
    if (n < k_) return n;
    const std::uint64_t least = least_of(keys_[k_ - 1]);
    block.each_thread([&](int thread) {
      for (std::int64_t i = k_ - 1 + thread; i < n; i += block.n_threads()) {
        if (keys_[i] > least && (i + 1 == n || keys_[i + 1] <= least)) shared_.count = static_cast<int>(i) + 1;
      }
      if (thread == 0) shared_.least = least;
    });
    return seen_count(block);
  }
  template <class Block>
  RECFUSE_DEVICE bool gave_up(Block& block) const {
    const bool gave_up = shared_.gave_up;
    block.each_thread([](int) {});
    return gave_up;
  }

 private:
  /// Below the k-th key, or below all that come within the slack.
  RECFUSE_DEVICE std::uint64_t least_of(std::uint64_t kth) const {
    if (slack_ == 0) return kth - 1;
    return ranking_key(static_cast<float>(key_score(kth) - slack_), 0x7FFFFFFF) - 1;
  }
  /// The same for all threads: none goes on to push before all have read it.
  template <class Block>
  RECFUSE_DEVICE std::int64_t seen_count(Block& block) const {
    const std::int64_t n = shared_.count;
    block.each_thread([](int) {});
    return n;
  }

  Shared& shared_;
  std::uint64_t* keys_;
  std::int64_t k_, capacity_;
  double slack_;
};

}  // namespace recfuse::cuda
