// The k largest keys of many, collected by a block.
#pragma once

#include <cstddef>
#include <cstdint>

#include "block.cuh"
#include "rank.cuh"

namespace recfuse::cuda {

/// Keys that may be among the k largest. When there is no room for another round the k largest stay, and the least of
/// them is what others must exceed: what comes out does not depend on the order in which threads push.
class BestKeys {
 public:
  static constexpr int kRound = 1'024;  // pushes between two calls of settle(), at most

  struct Shared {
    std::uint64_t least;  // keys up to here cannot enter
    int count;
  };

  /// A power of two, as sort_keys() wants it.
  RECFUSE_BOTH static std::int64_t capacity(std::int64_t k) { return power_of_two(k + kRound); }

  RECFUSE_DEVICE BestKeys(Shared& shared, std::uint64_t* keys, std::int64_t k)
      : shared_(shared), keys_(keys), k_(k), capacity_(capacity(k)) {}

  template <class Block>
  RECFUSE_DEVICE void clear(Block& block) {
    block.each_thread([&](int thread) {
      if (thread > 0) return;
      shared_.least = 0;
      shared_.count = 0;
    });
  }
  /// Within a phase: whether the key may enter, which then is pushed.
  RECFUSE_DEVICE bool wants(std::uint64_t key) const { return key > shared_.least; }
  template <class Block>
  RECFUSE_DEVICE void push(const Block& block, std::uint64_t key) const {
    keys_[block.add_atomically(&shared_.count, 1)] = key;
  }
  /// Between phases: makes room for another round.
  template <class Block>
  RECFUSE_DEVICE void settle(Block& block) {
    if (seen_count(block) + kRound > capacity_) sort(block);
  }
  /// The k largest come first, falling; returns how many there are.
  template <class Block>
  RECFUSE_DEVICE std::int64_t sort(Block& block) {
    const std::int64_t n = seen_count(block), size = power_of_two(n), kept = n < k_ ? n : k_;
    block.each_thread([&](int thread) {
      for (std::int64_t i = n + thread; i < size; i += block.n_threads()) keys_[i] = 0;
    });
    sort_keys(block, keys_, size);
    block.each_thread([&](int thread) {
      if (thread > 0) return;
      shared_.count = static_cast<int>(kept);
      if (kept == k_) shared_.least = keys_[k_ - 1];
    });
    return kept;
  }

 private:
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
};

}  // namespace recfuse::cuda
