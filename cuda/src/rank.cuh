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

/// The lists of blocks of items before become candidates beside those of the block at hand: their scores are known, so
/// both ends of their intervals are, and the k-th is a threshold.
struct CarryLists {
  static constexpr int kThreads = 128;
  Lists lists;
  Candidates candidates;
  std::int64_t n;  // queries

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread) {
      const std::int64_t q = static_cast<std::int64_t>(block.x()) * kThreads + thread;
      if (q >= n || candidates.counts[q] > candidates.capacity) return;
      const std::int32_t* const ids = lists.ids + q * lists.k;
      const float* const scores = lists.scores + q * lists.k;
      int count = 0;
      for (; count < lists.k && ids[count] >= 0; ++count) {
        const std::int64_t at = q * candidates.capacity + count;
        candidates.lower[at] = candidates.upper[at] = scores[count];
        candidates.ids[at] = ids[count];
      }
      candidates.counts[q] = count;
      if (count == lists.k) candidates.thresholds[q] = scores[count - 1];
    });
  }
};

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
    const std::int64_t row = items.row_of(id);
    if (row < 0) return ranking_key(candidates.lower[q * candidates.capacity + i], id);  // CarryLists
    return ranking_key(score(items, queries, q, row, nullptr), id);
  }
};

/// Of the items on a query's list, where those are few, the k best.
struct RankListed {
  static constexpr int kThreads = 256;
  Items items;
  Queries queries;
  Filters filters;
  const std::int32_t* ids;  // the list of every query, unless each has its own among the filters
  std::int64_t n_ids;
  Lists lists;

  RECFUSE_BOTH static std::size_t shared_bytes(std::int64_t longest) {
    return sizeof(std::uint64_t) * static_cast<std::size_t>(power_of_two(longest));
  }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t q = block.x();
    const std::int64_t* const indptr = filters.allow_indptr;
    const std::int32_t* const list = indptr == nullptr ? ids : filters.allow + (indptr[q] - indptr[0]);
    const std::int64_t n = indptr == nullptr ? n_ids : indptr[q + 1] - indptr[q];
    auto* const keys = reinterpret_cast<std::uint64_t*>(block.shared());
    const std::int64_t size = power_of_two(n);
    block.each_thread([&](int thread) {
      for (std::int64_t i = thread; i < size; i += kThreads) keys[i] = i < n ? key_of(q, list[i]) : 0;
    });
    sort_keys(block, keys, size);
    write_list(block, keys, n, lists, q);
  }

 private:
  RECFUSE_DEVICE std::uint64_t key_of(std::int64_t q, std::int32_t id) const {
    const std::int64_t row = items.row_of(id);
    return row >= 0 && filters.admit(q, id) ? ranking_key(score(items, queries, q, row, nullptr), id) : 0;
  }
};

/// Canonical keys of all items for some queries; 0 for what is not admitted. After them those of the lists so far.
struct ScoreAll {
  static constexpr int kThreads = 256;
  Items items;
  Queries queries;
  Filters filters;
  const std::int32_t* rows;  // which queries
  std::int64_t size;         // a power of two, at least the number of items, and of the entries of a list if carried
  std::int64_t n_blocks;     // that share the items of a query: a grid has at most 65,535 of them
  std::uint64_t* keys;       // (n_rows, size)
  Lists carried;             // from blocks of items before; k of 0: there are none

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t q = rows[block.x()];
    std::uint64_t* const to = keys + block.x() * size;
    block.each_thread([&](int thread) {
      for (std::int64_t at = std::int64_t{block.y()} * kThreads + thread; at < size; at += n_blocks * kThreads) {
        to[at] = at < items.n ? key_of(q, at) : at < items.n + carried.k ? carried_key(q, at - items.n) : 0;
      }
    });
  }

 private:
  RECFUSE_DEVICE std::uint64_t key_of(std::int64_t q, std::int64_t row) const {
    const std::int32_t id = items.id(row);
    return filters.admit(q, id) ? ranking_key(score(items, queries, q, row, nullptr), id) : 0;
  }
  RECFUSE_DEVICE std::uint64_t carried_key(std::int64_t q, std::int64_t i) const {
    const std::int32_t id = carried.ids[q * carried.k + i];
    return id < 0 ? 0 : ranking_key(carried.scores[q * carried.k + i], id);
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

/// Scores of given pairs, and their terms; those of items elsewhere are left as they are.
struct ScorePairs {
  static constexpr int kThreads = 128;
  Items items;
  Queries queries;
  const std::int64_t* rows;  // (pairs): the query; null: `per_query` pairs each
  std::int64_t per_query;
  const std::int32_t* ids;  // (pairs); -1: none
  std::int64_t n;
  float* scores;  // (pairs); null: not wanted
  double* terms;  // (pairs, modalities); null: not wanted

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread) {
      const std::int64_t pair = std::int64_t{block.x()} * kThreads + thread;
      if (pair >= n) return;
      const std::int32_t id = ids[pair];
      double* const of_pair = terms == nullptr ? nullptr : terms + pair * items.matrices.n_modalities;
      for (int m = 0; terms != nullptr && id < 0 && m < items.matrices.n_modalities; ++m) of_pair[m] = 0;
      const std::int64_t row = id < 0 ? -1 : items.row_of(id);
      if (row < 0) return;
      const float value = score(items, queries, rows == nullptr ? pair / per_query : rows[pair], row, of_pair);
      if (scores != nullptr) scores[pair] = value;
    });
  }
};

}  // namespace recfuse::cuda
