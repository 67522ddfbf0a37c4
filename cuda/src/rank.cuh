// The exact end of a search: canonical scores, sorted.
#pragma once

#include <cmath>
#include <cstdint>

#include "block.cuh"
#include "candidates.cuh"
#include "vectors.cuh"

namespace recfuse::cuda {

struct Lists {
  std::int64_t k;
  std::int32_t* ids;  // (queries, k)
  float* scores;      // (queries, k)
};

/// Sorts keys from the largest down; `size` is a power of two, what lies beyond the keys is 0. Bitonic: its steps do
/// not depend on the data, so neither does the time.
template <class Block>
RECFUSE_DEVICE void sort_keys(Block& block, std::uint64_t* keys, std::int64_t size) {
  for (std::int64_t run = 2; run <= size; run *= 2) {
    for (std::int64_t apart = run / 2; apart > 0; apart /= 2) {
      block.each_thread([&](int thread) {
        for (std::int64_t i = thread; i < size; i += block.n_threads()) {
          const std::int64_t j = i ^ apart;
          if (j <= i) continue;
          const bool falls = (i & run) == 0;
          const std::uint64_t a = keys[i], b = keys[j];
          if (falls ? a < b : a > b) {
            keys[i] = b;
            keys[j] = a;
          }
        }
      });
    }
  }
}

template <class Block>
RECFUSE_DEVICE void write_list(Block& block, const std::uint64_t* keys, std::int64_t n, const Lists& lists,
                               std::int64_t q) {
  block.each_thread([&](int thread) {
    for (std::int64_t i = thread; i < lists.k; i += block.n_threads()) {
      const std::uint64_t key = i < n ? keys[i] : 0;
      lists.ids[q * lists.k + i] = key == 0 ? -1 : key_id(key);
      lists.scores[q * lists.k + i] = key == 0 ? -INFINITY : key_score(key);
    }
  });
}

/// The smallest power of two that is at least n.
RECFUSE_BOTH std::int64_t power_of_two(std::int64_t n) {
  std::int64_t size = 1;
  while (size < n) size *= 2;
  return size;
}

/// Of the candidates of a query, and of the items that no screen can judge, the k best.
struct RankCandidates {
  static constexpr int kThreads = 256;
  Candidates candidates;
  Items items;
  Queries queries;
  Filters filters;
  const std::int32_t* irregular;
  std::int32_t n_irregular;
  Lists lists;

  RECFUSE_BOTH static std::size_t shared_bytes(int capacity, int n_irregular) {
    return sizeof(std::uint64_t) * static_cast<std::size_t>(power_of_two(capacity + n_irregular));
  }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t q = block.x();
    const int n_screened = candidates.counts[q];
    if (n_screened > candidates.capacity) return;
    const int n = n_screened + n_irregular;
    auto* const keys = reinterpret_cast<std::uint64_t*>(block.shared());
    const std::int64_t size = power_of_two(n);
    block.each_thread([&](int thread) {
      for (std::int64_t i = thread; i < size; i += kThreads) keys[i] = i < n ? key_of(q, i, n_screened) : 0;
    });
    sort_keys(block, keys, size);
    write_list(block, keys, n, lists, q);
  }

 private:
  RECFUSE_DEVICE std::uint64_t key_of(std::int64_t q, std::int64_t i, int n_screened) const {
    const std::int32_t id = i < n_screened ? candidates.ids[q * candidates.capacity + i] : irregular[i - n_screened];
    if (i >= n_screened && !filters.admit(q, id)) return 0;  // candidates have been asked
    return ranking_key(score(items, queries, q, id, nullptr), id);
  }
};

/// Canonical keys of all items for some queries; 0 for what is not admitted.
struct ScoreAll {
  static constexpr int kThreads = 256;
  Items items;
  Queries queries;
  Filters filters;
  const std::int32_t* rows;  // which queries
  std::int64_t size;         // a power of two, at least the number of items
  std::int64_t n_blocks;     // that share the items of a query: a grid has at most 65,535 of them
  std::uint64_t* keys;       // (n_rows, size)

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t q = rows[block.x()];
    std::uint64_t* const to = keys + block.x() * size;
    block.each_thread([&](int thread) {
      for (std::int64_t at = std::int64_t{block.y()} * kThreads + thread; at < size; at += n_blocks * kThreads) {
        const auto id = static_cast<std::int32_t>(at);
        const bool ranked = at < items.n && filters.admit(q, id);
        to[at] = ranked ? ranking_key(score(items, queries, q, id, nullptr), id) : 0;
      }
    });
  }
};

struct RankAll {
  static constexpr int kThreads = 1024;
  const std::int32_t* rows;
  std::int64_t size;
  std::uint64_t* keys;
  Lists lists;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    std::uint64_t* const of_query = keys + block.x() * size;
    sort_keys(block, of_query, size);
    write_list(block, of_query, size, lists, rows[block.x()]);
  }
};

/// Scores of given pairs, and their terms.
struct ScorePairs {
  static constexpr int kThreads = 128;
  Items items;
  Queries queries;
  const std::int64_t* rows;  // (pairs): the query; null: `per_query` pairs each
  std::int64_t per_query;
  const std::int32_t* ids;  // (pairs); -1: none
  std::int64_t n;
  float* scores;  // (pairs); null: not wanted
  double* terms;  // (pairs, modalities)

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread) {
      const std::int64_t pair = std::int64_t{block.x()} * kThreads + thread;
      if (pair >= n) return;
      const std::int32_t id = ids[pair];
      double* const of_pair = terms + pair * items.matrices.n_modalities;
      for (int m = 0; id < 0 && m < items.matrices.n_modalities; ++m) of_pair[m] = 0;
      if (id < 0) return;
      const float value = score(items, queries, rows == nullptr ? pair / per_query : rows[pair], id, of_pair);
      if (scores != nullptr) scores[pair] = value;
    });
  }
};

}  // namespace recfuse::cuda
