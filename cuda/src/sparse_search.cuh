// Rows of a sparse matrix times lists, and the best ids of each: what cosine_knn() and neighbour_topk() have in common
// on a device.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "best_keys.cuh"
#include "block.cuh"
#include "fixed_sums.cuh"
#include "rank.cuh"
#include "recfuse/cuda/memory.hpp"
#include "recfuse/errors.hpp"
#include "recfuse/views.hpp"
#include "sparse_sums.cuh"
#include "strip_lists.cuh"
#include "vectors.cuh"

namespace recfuse::cuda {

/// What tests make small.
struct SparseLimits {
  std::int64_t strip_ids = std::numeric_limits<std::int64_t>::max();  // of a strip, at most
  std::int64_t shared_keys = 4'096;                                   // candidates of a row in shared memory, at most
  std::int64_t keys_bytes = 256 << 20;                                // of candidates elsewhere
  std::int64_t heavy_work = 1 << 20;  // additions from which a row may be shared by blocks,
  std::int64_t shares = 4;            // if it has more than one of so many shares per multiprocessor
  std::int64_t screened_entries = FixedSums<true>::kMostEntries;  // longer rows are added up in float64, all of them
};

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

/// Per task: sums of strip after strip, and the k best keys of them.
template <class Sums>
struct SearchRows {
  static constexpr int kThreads = Sums::kThreads;

  SparseRows rows;
  StripLists<typename Sums::Value> lists;
  Similarity how;
  Filters filters;
  const RowTask* tasks;
  std::int64_t k;        // that a list can have
  std::uint64_t* keys;   // (blocks, capacity); null: candidates are in shared memory
  std::uint64_t* parts;  // (parts, k): of tasks that do not write a list
  CrowdedRows crowded;   // of sums that screen
  Lists out;

  struct Shared {
    BestKeys::Shared best;
  };
  static constexpr std::size_t kHead = (sizeof(Shared) + 15) / 16 * 16;

  /// But those of sums.
  static std::size_t fixed_bytes(std::int64_t shared_keys) {
    return kHead + static_cast<std::size_t>(shared_keys) * sizeof(std::uint64_t);
  }
  static std::size_t shared_bytes(std::int64_t width, std::int64_t shared_keys) {
    return fixed_bytes(shared_keys) + std::max(static_cast<std::size_t>(width * Sums::kStrip.sum_bytes), kScratch);
  }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const RowTask task = tasks[block.x()];
    const std::int64_t capacity = BestKeys::capacity(k);
    auto* const here = reinterpret_cast<std::uint64_t*>(block.shared() + kHead);
    std::uint64_t* const of_block = keys == nullptr ? here : keys + block.x() * capacity;
    auto* const memory = reinterpret_cast<char*>(keys == nullptr ? here + capacity : here);
    const Sums sums(memory, lists.width);
    BestKeys best(reinterpret_cast<Shared*>(block.shared())->best, of_block, k, slack(task.row));
    best.clear(block);
    for (int strip = task.first_strip; strip < task.end_strip; ++strip) {
      search_strip(block, task.row, strip, sums, best);
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
  RECFUSE_DEVICE void search_strip(Block& block, std::int64_t row, int strip, const Sums& sums, BestKeys& best) const {
    const int size = lists.size(strip);
    const std::int64_t first = lists.first_id(strip);
    block.each_thread([&](int thread) {
      for (int i = thread; i < size; i += kThreads) sums.clear(i);
    });
    sums.add_row(block, rows, lists, row, strip, how);
    for (int begin = 0; begin < size; begin += BestKeys::kRound) {
      best.settle(block);
      const int end = size - begin < BestKeys::kRound ? size : begin + BestKeys::kRound;
      SumLimit limit{0, 0};
      if constexpr (kLimits) limit = sums.limit(best.threshold(), row, how);
      block.each_thread([&](int thread) {
        for (int i = begin + thread; i < end; i += kThreads) {
          const std::int64_t id = first + i;
          if ((how.others_only && id == row) || !sums.counts(i, how)) continue;
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

/// The rows of a device's matrix, what they are multiplied with, and what a list is.
struct SearchArgs {
  SparseRows rows;
  Similarity how;
  Filters filters;
  std::int64_t k;  // that a list can have
};

/// The lists of all rows, on the device.
template <class Device>
class FoundLists {
 public:
  FoundLists(Device& device, const TopkOut& out)
      : k_(out.ids.cols), ids_(device, size_of(out)), scores_(device, size_of(out)) {}

  Lists view() { return {k_, ids_.data(), scores_.data()}; }
  void read(const TopkOut& out) const {
    read(ids_, out.ids);
    read(scores_, out.scores);
  }

 private:
  template <class T>
  using Array = typename Device::template Array<T>;

  static std::size_t size_of(const TopkOut& out) { return static_cast<std::size_t>(out.ids.rows * out.ids.cols); }

  template <class T>
  static void read(const Array<T>& from, const MatrixView<T>& to) {
    if (to.stride == to.cols) return from.read({to.data, from.size()});
    const std::vector<T> all = from.all();
    for (std::int64_t row = 0; row < to.rows; ++row)
      std::copy_n(&all[static_cast<std::size_t>(row * to.cols)], to.cols, to.row(row));
  }

  std::int64_t k_;
  Array<std::int32_t> ids_;
  Array<float> scores_;
};

/// Searches rows, in blocks of about the same work.
template <class Device>
class SparseSearch {
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  SparseSearch(Device& device, const SparseLimits& limits) : device_(device), limits_(limits) {}

  /// Ids of a strip: as many as there are, as fit a block beside its candidates, or as their numbers can tell apart.
  template <class Sums>
  std::int64_t strip_width(std::int64_t n_ids, std::int64_t k) const {
    const std::size_t rest = device_.most_shared_bytes() - SearchRows<Sums>::fixed_bytes(shared_keys(k));
    return std::clamp<std::int64_t>(
        static_cast<std::int64_t>(rest) / Sums::kStrip.sum_bytes, 1,
        std::min({limits_.strip_ids, std::max<std::int64_t>(n_ids, 1), Sums::kStrip.most_ids}));
  }

  /// Returns the rows that must be added up in another way. `only`: a mark for each row to search, or empty.
  template <class Sums>
  std::vector<std::int32_t> run(const SearchArgs& args, const DeviceLists<Device, typename Sums::Value>& device_lists,
                                const std::vector<char>& only, const Lists& found) {
    const std::int64_t capacity = BestKeys::capacity(args.k), in_shared = shared_keys(args.k);
    const StripLists lists = device_lists.view();
    const Schedule schedule = scheduled(device_lists.work(device_, args.rows), only, lists.n_strips, args.k);
    Array<std::uint64_t> parts(device_, static_cast<std::size_t>(schedule.n_parts * args.k));
    Array<std::int32_t> failed(device_, screens<Sums> ? schedule.tasks.size() : 0), n_failed(device_, 1);
    n_failed.clear();
    const auto bytes = SearchRows<Sums>::shared_bytes(lists.width, in_shared);
    each_batch(schedule.tasks, in_shared > 0 ? 0 : capacity,
               [&](const RowTask* tasks, std::int64_t n, std::uint64_t* keys) {
                 device_.launch(SearchRows<Sums>{args.rows,
                                                 lists,
                                                 args.how,
                                                 args.filters,
                                                 tasks,
                                                 args.k,
                                                 keys,
                                                 parts.data(),
                                                 {n_failed.data(), failed.data()},
                                                 found},
                                n, 1, bytes);
               });
    merge(schedule.shared, lists.n_strips, args.k, parts, found);
    std::vector<std::int32_t> rows = failed.all();
    rows.resize(static_cast<std::size_t>(n_failed.all()[0]));
    return rows;
  }

 private:
  /// Rows with much to do come first: when the last blocks begin, what is left is short.
  struct Schedule {
    std::vector<RowTask> tasks;
    std::vector<SharedRow> shared;
    std::int32_t n_parts = 0;

    void add(std::int32_t row, int n_strips, bool heavy) {
      if (!heavy) return tasks.push_back({row, 0, n_strips, -1});
      shared.push_back({row, n_parts, n_strips});
      for (int strip = 0; strip < n_strips; ++strip) tasks.push_back({row, strip, strip + 1, n_parts++});
    }
  };

  /// Candidates of a row in shared memory; 0: they are elsewhere.
  std::int64_t shared_keys(std::int64_t k) const {
    const std::int64_t capacity = BestKeys::capacity(k);
    return capacity <= limits_.shared_keys ? capacity : 0;
  }

  Schedule scheduled(const std::vector<std::int64_t>& work, const std::vector<char>& only, int n_strips,
                     std::int64_t k) const {
    // A row is heavy if others are done long before it; so there are not many.
    const std::int64_t all = std::accumulate(work.begin(), work.end(), std::int64_t{0});
    const std::int64_t heavy = std::max(limits_.heavy_work, all / (limits_.shares * device_.multiprocessors()));
    constexpr std::int64_t kMostShared = 1'024;  // longer lists would make merging the longer part
    Schedule schedule;
    schedule.tasks.reserve(work.size());
    for (const std::int32_t row : falling(work)) {
      if (!only.empty() && only[static_cast<std::size_t>(row)] == 0) continue;
      const bool is_heavy = n_strips > 1 && k <= kMostShared && work[static_cast<std::size_t>(row)] >= heavy;
      schedule.add(row, n_strips, is_heavy);
    }
    return schedule;
  }

  /// Rows from the most work down, within an eighth: a sort would take as long as the search.
  static std::vector<std::int32_t> falling(const std::vector<std::int64_t>& work) {
    constexpr int kSteps = 8, kBuckets = 64 * kSteps;
    const auto bucket_of = [](std::int64_t w) {
      const auto x = static_cast<std::uint64_t>(w) * kSteps + kSteps;  // at least 8: three bits after the first
      const auto bits = static_cast<int>(std::bit_width(x));
      return static_cast<std::size_t>(kBuckets - 1 - ((bits - 4) * kSteps + static_cast<int>(x >> (bits - 4) & 7U)));
    };
    std::vector<std::int64_t> next(kBuckets + 1);
    for (const std::int64_t w : work) ++next[bucket_of(w) + 1];
    std::partial_sum(next.begin(), next.end(), next.begin());
    std::vector<std::int32_t> rows(work.size());
    for (std::size_t row = 0; row < work.size(); ++row) {
      rows[static_cast<std::size_t>(next[bucket_of(work[row])]++)] = static_cast<std::int32_t>(row);
    }
    return rows;
  }

  /// `capacity`: of a block's candidates in the memory of the device, 0 if they are not there.
  template <class Launch>
  void each_batch(const std::vector<RowTask>& tasks, std::int64_t capacity, const Launch& launch) {
    const Array<RowTask> on_device(device_, std::span<const RowTask>(tasks));
    const auto n = static_cast<std::int64_t>(tasks.size());
    const auto bytes = static_cast<std::int64_t>(sizeof(std::uint64_t)) * capacity;
    const std::int64_t batch = capacity == 0 ? n : std::clamp<std::int64_t>(limits_.keys_bytes / bytes, 1, n);
    Array<std::uint64_t> keys(device_, static_cast<std::size_t>(batch * capacity));
    for (std::int64_t begin = 0; begin < n; begin += batch) {
      launch(on_device.data() + begin, std::min(batch, n - begin), capacity == 0 ? nullptr : keys.data());
    }
  }

  void merge(const std::vector<SharedRow>& rows, int n_strips, std::int64_t k, const Array<std::uint64_t>& parts,
             const Lists& lists) {
    if (rows.empty()) return;
    const Array<SharedRow> on_device(device_, std::span<const SharedRow>(rows));
    const std::int64_t most = power_of_two(n_strips * k);
    Array<std::uint64_t> keys(device_, rows.size() * static_cast<std::size_t>(most));
    device_.launch(MergeParts{on_device.data(), parts.data(), k, most, keys.data(), lists},
                   static_cast<std::int64_t>(rows.size()), 1, 0);
  }

  Device& device_;
  SparseLimits limits_;
};

/// What is said of memory that ends: of one array, DeviceOutOfMemory speaks, and all of ours are gone again.
template <class Device, class F>
void with_memory_of(const char* op, const char* what, const F& f) {
  try {
    f();
  } catch (const DeviceOutOfMemory&) {
    const MemoryInfo info = Device::memory_info();
    throw DeviceOutOfMemory(std::string(op) + ": " + what + " must fit the memory of cuda; got " +
                            std::to_string(info.free) + " bytes free of " + std::to_string(info.total) +
                            ". device='cpu' needs none of it.");
  }
}

}  // namespace recfuse::cuda
