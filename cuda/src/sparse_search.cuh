// Rows of a sparse matrix times lists, and the best ids of each: what cosine_knn() and neighbour_topk() have in common
// on a device.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "best_keys.cuh"
#include "dense_columns.cuh"
#include "fixed_sums.cuh"
#include "rank.cuh"
#include "recfuse/cuda/memory.hpp"
#include "recfuse/errors.hpp"
#include "recfuse/sparse_memory.hpp"
#include "recfuse/views.hpp"
#include "search_rows.cuh"
#include "strip_lists.cuh"
#include "sum_places.cuh"
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
  std::int64_t table_ids = kLeastTableIds;                        // from so many on, rows may have tables
  std::int64_t table_places = std::numeric_limits<std::int64_t>::max();  // of so many places, at most
  std::int64_t ids_per_addition = kIdsPerAddition;                       // as has_table() wants them
  DenseCosts dense = {};
  std::int64_t dense_sums_bytes = kDenseSumsBytes;
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

  /// Returns the rows that must be added up in another way. make_lists.operator()<Id>(width) makes the lists, of
  /// `n_ids` ids; `left` has a mark for each row to search; `dense`: columns of counts, or null.
  template <class Sums, class MakeLists>
  std::vector<std::int32_t> run(const SearchArgs& args, std::int64_t n_ids, const MakeLists& make_lists,
                                std::vector<char> left, const Lists& found,
                                const DenseColumns<Device>* dense = nullptr) {
    std::vector<std::int32_t> failed;
    const std::int64_t most = most_places<Sums>(args.k);
    if (n_ids >= limits_.table_ids && most > 0) {
      const auto lists = make_lists.template operator()<TablePlaces::Id>(std::max<std::int64_t>(n_ids, 1));
      const auto work = lists.work(device_, args.rows);
      search<Sums, TablePlaces>(args, lists.view(), in_tables(work, n_ids, most, left), found, failed);
    }
    if (std::find(left.begin(), left.end(), 1) == left.end()) return failed;
    const auto lists = make_lists.template operator()<StripPlaces::Id>(strip_width<Sums>(n_ids, args.k));
    const auto work = lists.work(device_, args.rows);
    if (dense != nullptr && dense->any()) {
      SearchArgs others = args;
      others.rows = dense->others();
      const Schedule schedule =
          with_products(work, lists.work(device_, others.rows), dense->cost(), lists.n_strips(), left);
      search<Sums, StripPlaces>(others, lists.view(), schedule, found, failed, dense);
    }
    search<Sums, StripPlaces>(args, lists.view(), in_strips(work, left, lists.n_strips(), args.k), found, failed);
    return failed;
  }

 private:
  /// Tasks whose tables have the same number of places.
  struct Group {
    std::int64_t n_places;
    std::vector<RowTask> tasks;
  };
  struct Schedule {
    std::vector<Group> groups;
    std::vector<SharedRow> shared;
    std::int32_t n_parts = 0;

    std::size_t n_tasks() const {
      return std::accumulate(groups.begin(), groups.end(), std::size_t{0},
                             [](std::size_t n, const Group& group) { return n + group.tasks.size(); });
    }
  };

  template <class Sums, class Places, class DeviceListsView>
  void search(const SearchArgs& args, const DeviceListsView& lists, const Schedule& schedule, const Lists& found,
              std::vector<std::int32_t>& failed, const DenseColumns<Device>* dense = nullptr) {
    const auto n_tasks = static_cast<std::int64_t>(schedule.n_tasks());
    if (n_tasks == 0) return;
    std::int64_t at_once = n_tasks;
    std::optional<typename DenseColumns<Device>::Products> products;
    if (dense != nullptr) {
      at_once = std::min(n_tasks, dense_rows(args.rows.n_rows, limits_.dense_sums_bytes));
      products.emplace(*dense, at_once);
    }
    const std::int64_t in_shared = shared_keys(args.k), capacity = in_shared > 0 ? 0 : BestKeys::capacity(args.k);
    Array<std::uint64_t> parts(device_, static_cast<std::size_t>(schedule.n_parts * args.k));
    Array<std::int32_t> crowded(device_, screens<Sums> ? static_cast<std::size_t>(n_tasks) : 0), n_crowded(device_, 1);
    n_crowded.clear();
    search_groups(schedule.groups, at_once, capacity,
                  [&](std::int64_t n_places, const RowTask* tasks, std::int64_t n, std::uint64_t* keys) {
                    const std::int64_t places = n_places > 0 ? n_places : lists.width;
                    const std::int32_t* const begun = products ? products->of(tasks, n) : nullptr;
                    device_.launch(SearchRows<Sums, Places>{args.rows,
                                                            lists,
                                                            static_cast<int>(places),
                                                            args.how,
                                                            args.filters,
                                                            tasks,
                                                            args.k,
                                                            keys,
                                                            parts.data(),
                                                            {n_crowded.data(), crowded.data()},
                                                            found,
                                                            begun,
                                                            products ? products->stride() : 0},
                                   n, 1, SearchRows<Sums, Places>::shared_bytes(places, in_shared));
                  });
    merge(schedule.shared, lists.n_strips, args.k, parts, found);
    const std::vector<std::int32_t> rows = crowded.all();
    failed.insert(failed.end(), rows.begin(), rows.begin() + n_crowded.all()[0]);
  }

  /// `at_once`: tasks of a launch, at most. `capacity`: of a block's candidates in the memory of the device, 0 if they
  /// are not there.
  template <class Launch>
  void search_groups(const std::vector<Group>& groups, std::int64_t at_once, std::int64_t capacity,
                     const Launch& launch) {
    std::vector<RowTask> tasks;
    for (const Group& group : groups) tasks.insert(tasks.end(), group.tasks.begin(), group.tasks.end());
    const Array<RowTask> on_device(device_, std::span<const RowTask>(tasks));
    const auto bytes = static_cast<std::int64_t>(sizeof(std::uint64_t)) * capacity;
    const std::int64_t batch =
        capacity == 0 ? at_once : std::clamp<std::int64_t>(limits_.keys_bytes / bytes, 1, at_once);
    Array<std::uint64_t> keys(device_, static_cast<std::size_t>(batch * capacity));
    const RowTask* of_group = on_device.data();
    for (const Group& group : groups) {
      const auto n = static_cast<std::int64_t>(group.tasks.size());
      for (std::int64_t begin = 0; begin < n; begin += batch) {
        launch(group.n_places, of_group + begin, std::min(batch, n - begin), capacity == 0 ? nullptr : keys.data());
      }
      of_group += n;
    }
  }

  /// Candidates of a row in shared memory; 0: they are elsewhere.
  std::int64_t shared_keys(std::int64_t k) const {
    const std::int64_t capacity = BestKeys::capacity(k);
    return capacity <= limits_.shared_keys ? capacity : 0;
  }

  template <class Sums, class Places>
  std::int64_t fitting(std::int64_t k) const {
    using Search = SearchRows<Sums, Places>;
    const std::size_t rest = device_.most_shared_bytes() - Search::fixed_bytes(shared_keys(k));
    return static_cast<std::int64_t>(rest) / Search::kPlaceBytes;
  }
  /// Ids of a strip: as many as there are, as fit a block beside its candidates, or as their numbers can tell apart.
  template <class Sums>
  std::int64_t strip_width(std::int64_t n_ids, std::int64_t k) const {
    return std::clamp<std::int64_t>(
        fitting<Sums, StripPlaces>(k), 1,
        std::min({limits_.strip_ids, std::max<std::int64_t>(n_ids, 1), Sums::kStrip.most_ids}));
  }
  /// Of a table; 0: a block has no room for one.
  template <class Sums>
  std::int64_t most_places(std::int64_t k) const {
    const std::int64_t most = std::min({fitting<Sums, TablePlaces>(k), limits_.table_places, Sums::kStrip.most_places});
    return static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(most)));
  }

  /// Rows with few additions, by the size of their tables; takes their marks.
  Schedule in_tables(const std::vector<std::int64_t>& work, std::int64_t n_ids, std::int64_t most_places,
                     std::vector<char>& left) const {
    constexpr std::int64_t kLeastPlaces = 1'024, kFewer = 4;  // a table is cleared and looked through in full
    Schedule schedule;
    for (std::int64_t places = most_places; places >= std::min(kLeastPlaces, most_places); places /= kFewer) {
      schedule.groups.push_back({places, {}});
    }
    for (const std::int32_t row : falling(work)) {
      const std::int64_t additions = work[static_cast<std::size_t>(row)];
      char& mark = left[static_cast<std::size_t>(row)];
      if (mark == 0 || !has_table(additions, n_ids, most_places, limits_.ids_per_addition)) continue;
      std::size_t group = schedule.groups.size() - 1;
      while (additions > table_room(schedule.groups[group].n_places)) --group;
      schedule.groups[group].tasks.push_back({row, 0, 1, -1});
      mark = 0;
    }
    return schedule;
  }

  /// Rows that gain by having their dense columns multiplied, if all of them gain enough; takes their marks. `work` and
  /// `others`: additions with and without these columns.
  Schedule with_products(const std::vector<std::int64_t>& work, const std::vector<std::int64_t>& others,
                         std::int64_t cost, int n_strips, std::vector<char>& left) const {
    const auto gain_of = [&](std::size_t row) {
      return left[row] == 0 ? 0 : std::max<std::int64_t>(work[row] - others[row] - cost, 0);
    };
    std::int64_t gain = 0;
    for (std::size_t row = 0; row < work.size(); ++row) gain += gain_of(row);
    Schedule schedule;
    if (gain < limits_.dense.least_gain) return schedule;
    schedule.groups.push_back({0, {}});
    for (const std::int32_t row : falling(others)) {
      if (gain_of(static_cast<std::size_t>(row)) == 0) continue;
      schedule.groups[0].tasks.push_back({row, 0, n_strips, -1});
    }
    for (const RowTask& task : schedule.groups[0].tasks) left[static_cast<std::size_t>(task.row)] = 0;
    return schedule;
  }

  Schedule in_strips(const std::vector<std::int64_t>& work, const std::vector<char>& left, int n_strips,
                     std::int64_t k) const {
    // A row is heavy if others are done long before it; so there are not many.
    const std::int64_t all = std::accumulate(work.begin(), work.end(), std::int64_t{0});
    const std::int64_t heavy = std::max(limits_.heavy_work, all / (limits_.shares * device_.multiprocessors()));
    constexpr std::int64_t kMostShared = 1'024;  // longer lists would make merging the longer part
    Schedule schedule;
    schedule.groups.push_back({0, {}});
    std::vector<RowTask>& tasks = schedule.groups[0].tasks;
    tasks.reserve(work.size());
    for (const std::int32_t row : falling(work)) {
      if (left[static_cast<std::size_t>(row)] == 0) continue;
      if (n_strips == 1 || k > kMostShared || work[static_cast<std::size_t>(row)] < heavy) {
        tasks.push_back({row, 0, n_strips, -1});
        continue;
      }
      schedule.shared.push_back({row, schedule.n_parts, n_strips});
      for (int strip = 0; strip < n_strips; ++strip) {
        tasks.push_back({row, strip, strip + 1, schedule.n_parts++});
      }
    }
    return schedule;
  }

  /// Rows from the most work down, within an eighth: a sort would take as long as the search. Those with much to do
  /// come first: when the last blocks begin, what is left is short.
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
