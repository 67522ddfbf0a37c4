// From the entries of a sparse matrix to lists: entries are counted, lists placed by running sums, and filled.
#pragma once

#include <cstddef>
#include <cstdint>

#include "block.cuh"

namespace recfuse::cuda {

/// Rows of a CSR, whose indptr may start above 0. There are no values where each counts as one.
struct SparseRows {
  const std::int64_t* indptr;
  const std::int32_t* columns;
  const float* values;
  std::int64_t n_rows, n_entries;

  RECFUSE_DEVICE std::int64_t begin(std::int64_t row) const { return indptr[row] - indptr[0]; }
  RECFUSE_DEVICE std::int64_t end(std::int64_t row) const { return indptr[row + 1] - indptr[0]; }
  RECFUSE_DEVICE std::int64_t size(std::int64_t row) const { return indptr[row + 1] - indptr[row]; }
  RECFUSE_DEVICE float value(std::int64_t entry) const { return values == nullptr ? 1.0F : values[entry]; }
  /// That has the entry.
  RECFUSE_DEVICE std::int64_t row_of(std::int64_t entry) const {
    std::int64_t first = 0, last = n_rows;  // the first row that ends beyond it lies in between
    while (first < last) {
      const std::int64_t middle = (first + last) / 2;
      if (end(middle) > entry) {
        last = middle;
      } else {
        first = middle + 1;
      }
    }
    return first;
  }
};

/// Lists of ids, strip by strip. In strips of at most 65,536 ids, 16 bits tell them apart: half the bytes.
template <class Value, class Id = std::uint16_t>
struct StripLists {
  std::int64_t n_ids;
  int width;  // ids of a strip
  int n_strips;
  const std::int64_t* starts;  // (lists * n_strips + 1)
  const Id* ids;               // within their strip
  const Value* values;

  RECFUSE_DEVICE std::int64_t begin(std::int32_t list, int strip) const {
    return starts[static_cast<std::int64_t>(list) * n_strips + strip];
  }
  RECFUSE_DEVICE std::int64_t end(std::int32_t list, int strip) const { return begin(list, strip + 1); }
  RECFUSE_DEVICE Value value(std::int64_t at) const { return values == nullptr ? Value{1} : values[at]; }
  RECFUSE_DEVICE std::int64_t first_id(int strip) const { return static_cast<std::int64_t>(strip) * width; }
  /// How many ids the strip has: the last one may be shorter.
  RECFUSE_DEVICE int size(int strip) const {
    const std::int64_t left = n_ids - first_id(strip);
    return left < width ? static_cast<int>(left) : width;
  }
};

/// Which list an entry is on, and as what.
struct Cut {
  bool by_columns;  // lists of columns, and the ids are rows; or of rows, and the ids are columns
  int n_strips, width;

  RECFUSE_DEVICE std::int64_t list(std::int64_t row, std::int32_t column) const {
    return by_columns ? std::int64_t{column} * n_strips + row / width : row * n_strips + column / width;
  }
  RECFUSE_DEVICE std::int64_t id(std::int64_t row, std::int32_t column) const {
    return (by_columns ? row : column) % width;
  }
};

/// What lists keep of a value.
struct Unchanged {
  using Value = float;
  RECFUSE_DEVICE float operator()(float value, std::int64_t) const { return value; }
};
struct CountOf {
  using Value = std::uint16_t;
  float scale;
  RECFUSE_DEVICE std::uint16_t operator()(float value, std::int64_t) const {
    return static_cast<std::uint16_t>(value * scale);
  }
};

/// A thread has some neighbouring entries: it looks for the row of the first alone.
struct EachEntry {
  static constexpr int kThreads = 256;
  static constexpr std::int64_t kPerThread = 8, kEntries = kThreads * kPerThread;
  SparseRows rows;

  template <class Block, class F>
  RECFUSE_DEVICE void operator()(Block& block, F&& f) const {
    block.each_thread([&](int thread) {
      const std::int64_t first = (std::int64_t{block.x()} * kThreads + thread) * kPerThread;
      if (first >= rows.n_entries) return;
      const std::int64_t end = first + kPerThread < rows.n_entries ? first + kPerThread : rows.n_entries;
      std::int64_t row = rows.row_of(first);
      for (std::int64_t e = first; e < end; ++e) {
        while (e >= rows.end(row)) ++row;
        f(row, e);
      }
    });
  }
};

struct CountEntries {
  static constexpr int kThreads = EachEntry::kThreads;
  EachEntry each_entry;
  Cut cut;
  std::int32_t* sizes;  // of the lists, 0 before

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    each_entry(block, [&](std::int64_t row, std::int64_t e) {
      block.add_atomically(sizes + cut.list(row, each_entry.rows.columns[e]), 1);
    });
  }
};

/// Every list from its end down: where in it an id comes is left to chance, and does not matter.
template <class Encode, class Id>
struct FillLists {
  static constexpr int kThreads = EachEntry::kThreads;
  using Value = typename Encode::Value;
  EachEntry each_entry;
  Cut cut;
  const std::int64_t* starts;
  std::int32_t* left;  // sizes of the lists before, 0 afterwards
  Id* ids;
  Value* values;  // null: not wanted
  Encode encode;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    each_entry(block, [&](std::int64_t row, std::int64_t e) {
      const std::int32_t column = each_entry.rows.columns[e];
      const std::int64_t list = cut.list(row, column);
      const std::int64_t at = starts[list] + block.add_atomically(left + list, -1) - 1;
      ids[at] = static_cast<Id>(cut.id(row, column));
      if (values != nullptr) values[at] = encode(each_entry.rows.values[e], row);
    });
  }
};

/// Sums over the threads of a block, from the first up to each, in shared memory.
struct RunningSums {
  static constexpr int kThreads = 256;
  static constexpr std::size_t kSharedBytes = 2 * kThreads * sizeof(std::int64_t);

  /// value_of(thread) is what each has.
  template <class Block, class ValueOf>
  RECFUSE_DEVICE static const std::int64_t* of(Block& block, const ValueOf& value_of) {
    auto* values = reinterpret_cast<std::int64_t*>(block.shared());
    std::int64_t* other = values + kThreads;
    block.each_thread([&](int thread) { values[thread] = value_of(thread); });
    for (int apart = 1; apart < kThreads; apart *= 2) {
      block.each_thread(
          [&](int thread) { other[thread] = values[thread] + (thread >= apart ? values[thread - apart] : 0); });
      std::int64_t* const summed = other;
      other = values;
      values = summed;
    }
    return values;
  }
};

/// A block has a run of lists, a thread some neighbours of it.
struct ListRun {
  static constexpr std::int64_t kPerThread = 16, kRun = kPerThread * RunningSums::kThreads;
  const std::int32_t* sizes;
  std::int64_t n_lists;

  template <class Block, class F>
  RECFUSE_DEVICE void each(const Block& block, int thread, F&& f) const {
    const std::int64_t first = block.x() * kRun + thread * kPerThread;
    for (std::int64_t i = first; i < first + kPerThread && i < n_lists; ++i) f(i, sizes[i]);
  }
  template <class Block>
  RECFUSE_DEVICE std::int64_t sum(const Block& block, int thread) const {
    std::int64_t sum = 0;
    each(block, thread, [&](std::int64_t, std::int32_t size) { sum += size; });
    return sum;
  }
};

struct AddRuns {
  static constexpr int kThreads = RunningSums::kThreads;
  const std::int32_t* sizes;
  std::int64_t n_lists;
  std::int64_t* runs;  // entries of each

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const ListRun run{sizes, n_lists};
    const std::int64_t* const sums = RunningSums::of(block, [&](int thread) { return run.sum(block, thread); });
    block.each_thread([&](int thread) {
      if (thread == kThreads - 1) runs[block.x()] = sums[thread];
    });
  }
};

/// One block: from the entries of runs to where they begin.
struct PlaceRuns {
  static constexpr int kThreads = RunningSums::kThreads;
  std::int64_t n_runs;
  std::int64_t* runs;
  std::int64_t* end;  // of the last

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t each = (n_runs + kThreads - 1) / kThreads;
    const auto end_of = [&](int thread) { return (thread + 1) * each < n_runs ? (thread + 1) * each : n_runs; };
    const std::int64_t* const sums = RunningSums::of(block, [&](int thread) {
      std::int64_t sum = 0;
      for (std::int64_t i = thread * each; i < end_of(thread); ++i) sum += runs[i];
      return sum;
    });
    block.each_thread([&](int thread) {
      std::int64_t at = thread > 0 ? sums[thread - 1] : 0;
      for (std::int64_t i = thread * each; i < end_of(thread); ++i) {
        const std::int64_t size = runs[i];
        runs[i] = at;
        at += size;
      }
      if (thread == kThreads - 1) *end = sums[thread];
    });
  }
};

struct PlaceLists {
  static constexpr int kThreads = RunningSums::kThreads;
  static constexpr std::int64_t kRun = ListRun::kRun;
  const std::int32_t* sizes;
  std::int64_t n_lists;
  const std::int64_t* runs;  // where each begins
  std::int64_t* starts;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const ListRun run{sizes, n_lists};
    const std::int64_t* const sums = RunningSums::of(block, [&](int thread) { return run.sum(block, thread); });
    block.each_thread([&](int thread) {
      std::int64_t at = runs[block.x()] + (thread > 0 ? sums[thread - 1] : 0);
      run.each(block, thread, [&](std::int64_t list, std::int32_t size) {
        starts[list] = at;
        at += size;
      });
    });
  }
};

/// Per row: the lengths of the lists that it is multiplied with.
struct CountWork {
  static constexpr int kThreads = RunningSums::kThreads;
  static constexpr std::size_t kSharedBytes = RunningSums::kSharedBytes;
  SparseRows rows;
  const std::int64_t* starts;
  int n_strips;
  std::int64_t* work;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t row = block.x(), end = rows.end(row);
    const std::int64_t* const sums = RunningSums::of(block, [&](int thread) {
      std::int64_t sum = 0;
      for (std::int64_t e = rows.begin(row) + thread; e < end; e += kThreads) {
        const std::int64_t list = std::int64_t{rows.columns[e]} * n_strips;
        sum += starts[list + n_strips] - starts[list];
      }
      return sum;
    });
    block.each_thread([&](int thread) {
      if (thread == kThreads - 1) work[row] = sums[thread];
    });
  }
};

}  // namespace recfuse::cuda
