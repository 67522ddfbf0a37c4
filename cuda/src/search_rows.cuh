// The kernels of a search by sparse products: a block adds up a row, in strips or in a table, and keeps its best.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "best_keys.cuh"
#include "block.cuh"
#include "fixed_sums.cuh"
#include "rank.cuh"
#include "sparse_sums.cuh"
#include "strip_lists.cuh"
#include "sum_places.cuh"
#include "vectors.cuh"

namespace recfuse::cuda {

/// A row, or some strips of one, is what a block does.
struct RowTask {
  std::int32_t row;
  std::int32_t first_strip, end_strip;
  std::int32_t part;  // where its keys go; -1: it has all strips, and writes the list
};

template <class Sums>
constexpr bool screens = requires { Sums::kScreens; };

/// Rows that have more candidates than there is room for.
struct CrowdedRows {
  std::int32_t* count;
  std::int32_t* rows;
};

/// Per task: sums of strip after strip, or of all ids in a table, and the k best keys of them.
template <class Sums, class Places = StripPlaces>
struct SearchRows {
  static constexpr int kThreads = Sums::kThreads;
  static constexpr std::int64_t kPlaceBytes = Sums::kStrip.sum_bytes + Places::kBytes;

  SparseRows rows;
  StripLists<typename Sums::Value, typename Places::Id> lists;
  int n_places;  // for sums
  Similarity how;
  Filters filters;
  const RowTask* tasks;
  std::int64_t k;        // that a list can have
  std::uint64_t* keys;   // (blocks, capacity); null: candidates are in shared memory
  std::uint64_t* parts;  // (parts, k): of tasks that do not write a list
  CrowdedRows crowded;   // of sums that screen
  Lists out;
  const std::int32_t* begun = nullptr;  // (blocks, begun_stride): what sums of counts begin with; null: 0
  std::int64_t begun_stride = 0;

  struct Shared {
    BestKeys::Shared best;
  };
  static constexpr std::size_t kHead = (sizeof(Shared) + 15) / 16 * 16;

  /// But those of sums.
  static std::size_t fixed_bytes(std::int64_t shared_keys) {
    return kHead + static_cast<std::size_t>(shared_keys) * sizeof(std::uint64_t);
  }
  static std::size_t shared_bytes(std::int64_t n_places, std::int64_t shared_keys) {
    return fixed_bytes(shared_keys) + std::max(static_cast<std::size_t>(n_places * kPlaceBytes), kScratch);
  }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const RowTask task = tasks[block.x()];
    const std::int64_t capacity = BestKeys::capacity(k);
    auto* const here = reinterpret_cast<std::uint64_t*>(block.shared() + kHead);
    std::uint64_t* const of_block = keys == nullptr ? here : keys + block.x() * capacity;
    auto* const memory = reinterpret_cast<char*>(keys == nullptr ? here + capacity : here);
    const Sums sums(memory, n_places);
    Places places(memory + n_places * Sums::kStrip.sum_bytes, n_places);
    BestKeys best(reinterpret_cast<Shared*>(block.shared())->best, of_block, k, slack(task.row));
    best.clear(block);
    for (int strip = task.first_strip; strip < task.end_strip; ++strip) {
      places.enter(lists, strip);
      search_strip(block, task.row, strip, sums, places, best);
    }
    std::int64_t n = best.sort(block);
    if constexpr (kScreens) n = rescored(block, task.row, best.gave_up(block), of_block, n, memory);
    if (task.part < 0) return write_list(block, of_block, n, out, task.row);
    std::uint64_t* const part = parts + task.part * k;
    block.each_thread([&](int thread) {
      for (std::int64_t i = thread; i < k; i += kThreads) part[i] = i < n ? of_block[i] : 0;
    });
  }

 private:
  static constexpr bool kScreens = screens<Sums>;
  static constexpr bool kLimits = requires { &Sums::limit; };
  static constexpr bool kBegins = requires { &Sums::begin; } && Places::kBytes == 0;
  using Rescore = RescoreRows<CosineTerms>;
  static constexpr std::size_t kScratch = kScreens ? kThreads / kWarp * sizeof(Rescore::Scratch) : 0;

  RECFUSE_DEVICE double slack(std::int64_t row) const {
    if constexpr (kScreens) return 2 * Sums::bound(rows.size(row));
    return 0;
  }

  /// From candidates to keys of their canonical scores; returns how many make a list.
  template <class Block>
  RECFUSE_DEVICE std::int64_t rescored(Block& block, std::int32_t row, bool gave_up, std::uint64_t* of_block,
                                       std::int64_t n, char* memory) const {
    if (gave_up) {
      block.each_thread([&](int thread) {
        if (thread == 0) crowded.rows[block.add_atomically(crowded.count, 1)] = row;
      });
      return 0;
    }
    auto* const scratch = reinterpret_cast<typename Rescore::Scratch*>(memory);
    const std::int64_t size = power_of_two(n);
    block.each_warp([&](int warp) {
      for (std::int64_t i = warp; i < n; i += kThreads / kWarp) {
        Rescore{rows, how}.key_of(block, warp, scratch[warp], row, key_id(of_block[i]), of_block + i);
      }
    });
    block.each_thread([&](int thread) {
      for (std::int64_t i = n + thread; i < size; i += kThreads) of_block[i] = 0;
    });
    sort_keys(block, of_block, size);
    return n < k ? n : k;
  }

  template <class Block>
  RECFUSE_DEVICE void search_strip(Block& block, std::int64_t row, int strip, const Sums& sums, const Places& places,
                                   BestKeys& best) const {
    const int size = places.size();
    block.each_thread([&](int thread) {
      for (int i = thread; i < size; i += kThreads) {
        sums.clear(i);
        places.clear(i);
        if constexpr (kBegins) {
          if (begun != nullptr) sums.begin(i, begun[block.x() * begun_stride + places.id_at(i)]);
        }
      }
    });
    sums.add_row(block, rows, lists, places, row, strip, how);
    for (int begin = 0; begin < size; begin += BestKeys::kRound) {
      best.settle(block);
      const int end = size - begin < BestKeys::kRound ? size : begin + BestKeys::kRound;
      SumLimit limit{0, 0};
      if constexpr (kLimits) limit = sums.limit(best.threshold(), row, how);
      block.each_thread([&](int thread) {
        for (int i = begin + thread; i < end; i += kThreads) {
          const std::int64_t id = places.id_at(i);
          if (id < 0 || (how.others_only && id == row) || !sums.counts(i, how)) continue;
          if constexpr (kLimits) {
            if (!sums.reaches(i, id, how, limit)) continue;
          }
          const std::uint64_t key = ranking_key(sums.score(i, row, id, how), static_cast<std::int32_t>(id));
          // Filters are asked last: they take longer than the rest.
          if (best.wants(key) && filters.admit(row, static_cast<std::int32_t>(id))) best.push(block, key);
        }
      });
    }
  }
};

/// A row whose strips several blocks have searched.
struct SharedRow {
  std::int32_t row;
  std::int32_t first_part, n_parts;
};

struct MergeParts {
  static constexpr int kThreads = 256;
  const SharedRow* shared_rows;
  const std::uint64_t* parts;  // (parts, k)
  std::int64_t k;
  std::int64_t most_keys;  // a power of two, of any row's parts
  std::uint64_t* keys;     // (rows, most_keys)
  Lists out;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const SharedRow shared = shared_rows[block.x()];
    const std::int64_t n = shared.n_parts * k, size = power_of_two(n);
    std::uint64_t* const of_row = keys + block.x() * most_keys;
    block.each_thread([&](int thread) {
      for (std::int64_t i = thread; i < size; i += kThreads) of_row[i] = i < n ? parts[shared.first_part * k + i] : 0;
    });
    sort_keys(block, of_row, size);
    write_list(block, of_row, n, out, shared.row);
  }
};

}  // namespace recfuse::cuda
