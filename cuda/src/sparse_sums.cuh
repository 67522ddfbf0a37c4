// One sum per id of a strip, in shared memory, of a sparse row times the transpose: three ways to keep it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "block.cuh"
#include "recfuse/canonical.hpp"
#include "strip_lists.cuh"

namespace recfuse::cuda {

/// What makes a score of the sums of two rows.
struct Similarity {
  const double* squared;  // |row|^2
  double shrinkage;
  double units;  // that a product of 1 counts for
  int least;     // columns that both rows must have
  bool corated;
};

/// Whole numbers: exact in any order, so warps take columns as they come and add by atomics.
class CountSums {
 public:
  using Value = std::uint16_t;
  static constexpr std::size_t kBytes = sizeof(int);  // of an id
  static constexpr std::int64_t kMostIds = 16'384;    // 64 KiB: three blocks share a multiprocessor
  static constexpr int kThreads = 512;

  RECFUSE_DEVICE CountSums(char* memory, int) : sums_(reinterpret_cast<int*>(memory)) {}

  RECFUSE_DEVICE void clear(int i) const { sums_[i] = 0; }
  template <class Block>
  RECFUSE_DEVICE void add_row(Block& block, const SparseRows<Value>& rows, const StripLists<Value>& lists,
                              std::int64_t row, int strip) const {
    const std::int64_t end = rows.end(row);
    block.each_warp([&](int warp) {
      for (std::int64_t e = rows.begin(row) + warp; e < end; e += kThreads / kWarp) {
        const std::int32_t column = rows.columns[e];
        const int value = rows.value(e);
        const std::int64_t list_end = lists.end(column, strip);
        block.each_lane(warp, [&](int, int lane) {
          for (std::int64_t at = lists.begin(column, strip) + lane; at < list_end; at += kWarp) {
            block.add_atomically(sums_ + lists.ids[at], value * lists.value(at));
          }
        });
      }
    });
    block.each_thread([](int) {});
  }
  /// Values are positive: a sum tells that there was a term, and of ones how many.
  RECFUSE_DEVICE bool counts(int i, const Similarity& how) const { return sums_[i] >= how.least; }
  RECFUSE_DEVICE float score(int i, std::int64_t row, std::int64_t id, const Similarity& how) const {
    const double dot = sums_[i] / how.units;
    // Of rows of ones, the shared entries are all that there is to a corated norm.
    const double u = how.corated ? dot : how.squared[row], v = how.corated ? dot : how.squared[id];
    return cosine(dot, u, v, how.shrinkage);
  }

 private:
  int* sums_;
};

/// Adds the columns of a row one after the other, for sums in float64 depend on the order: within one, every id is met
/// once, and between two there is a barrier.
template <class Block, class Sums>
RECFUSE_DEVICE void add_in_order(Block& block, const Sums& sums, const SparseRows<float>& rows,
                                 const StripLists<float>& lists, std::int64_t row, int strip) {
  const std::int64_t end = rows.end(row);
  for (std::int64_t e = rows.begin(row); e < end; ++e) {
    const std::int32_t column = rows.columns[e];
    const std::int64_t list_begin = lists.begin(column, strip), list_end = lists.end(column, strip);
    if (list_begin == list_end) continue;
    const double u = rows.values[e];
    block.each_thread([&](int thread) {
      for (std::int64_t at = list_begin + thread; at < list_end; at += block.n_threads()) {
        sums.add(lists.ids[at], u, lists.values[at]);
      }
    });
  }
}

/// Float64, and how many terms there were.
class RealSums {
 public:
  using Value = float;
  static constexpr std::size_t kBytes = sizeof(double) + sizeof(int);
  static constexpr std::int64_t kMostIds = 8'192;
  static constexpr int kThreads = 256;

  RECFUSE_DEVICE RealSums(char* memory, int width)
      : dots_(reinterpret_cast<double*>(memory)), support_(reinterpret_cast<int*>(dots_ + width)) {}

  RECFUSE_DEVICE void clear(int i) const {
    dots_[i] = 0;
    support_[i] = 0;
  }
  RECFUSE_DEVICE void add(int i, double u, double v) const {
    dots_[i] += u * v;
    ++support_[i];
  }
  template <class Block>
  RECFUSE_DEVICE void add_row(Block& block, const SparseRows<Value>& rows, const StripLists<Value>& lists,
                              std::int64_t row, int strip) const {
    add_in_order(block, *this, rows, lists, row, strip);
  }
  RECFUSE_DEVICE bool counts(int i, const Similarity& how) const { return support_[i] >= how.least; }
  RECFUSE_DEVICE float score(int i, std::int64_t row, std::int64_t id, const Similarity& how) const {
    return cosine(dots_[i], how.squared[row], how.squared[id], how.shrinkage);
  }

 private:
  double* dots_;
  int* support_;
};

/// Inner product and both norms over the entries that two rows share.
class CoratedSums {
 public:
  using Value = float;
  static constexpr std::size_t kBytes = 3 * sizeof(double) + sizeof(int);
  static constexpr std::int64_t kMostIds = 4'096;
  static constexpr int kThreads = 256;

  RECFUSE_DEVICE CoratedSums(char* memory, int width)
      : dots_(reinterpret_cast<double*>(memory)),
        squared_u_(dots_ + width),
        squared_v_(squared_u_ + width),
        support_(reinterpret_cast<int*>(squared_v_ + width)) {}

  RECFUSE_DEVICE void clear(int i) const {
    dots_[i] = squared_u_[i] = squared_v_[i] = 0;
    support_[i] = 0;
  }
  RECFUSE_DEVICE void add(int i, double u, double v) const {
    dots_[i] += u * v;
    squared_u_[i] += u * u;
    squared_v_[i] += v * v;
    ++support_[i];
  }
  template <class Block>
  RECFUSE_DEVICE void add_row(Block& block, const SparseRows<Value>& rows, const StripLists<Value>& lists,
                              std::int64_t row, int strip) const {
    add_in_order(block, *this, rows, lists, row, strip);
  }
  RECFUSE_DEVICE bool counts(int i, const Similarity& how) const { return support_[i] >= how.least; }
  RECFUSE_DEVICE float score(int i, std::int64_t, std::int64_t, const Similarity& how) const {
    return cosine(dots_[i], squared_u_[i], squared_v_[i], how.shrinkage);
  }

 private:
  double *dots_, *squared_u_, *squared_v_;
  int* support_;
};

}  // namespace recfuse::cuda
