// One sum per id, in shared memory, of a sparse row times lists.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "block.cuh"
#include "list_kernels.cuh"
#include "recfuse/canonical.hpp"
#include "recfuse/sparse_memory.hpp"

namespace recfuse::cuda {

/// What makes a score of the sums of two rows.
struct Similarity {
  const double* squared;  // |row|^2
  const float* norms;     // |row|, of whole numbers alone
  double shrinkage;
  double scale;  // every value times this is a whole number, where sums are those
  int least;     // terms that a sum must have
  bool corated;
  bool others_only;  // a row is not its own neighbour
};

/// What a sum must reach, at least: norm * slope + offset.
struct SumLimit {
  float slope, offset;
};

/// Adds by warps, a list each, in any order: for whole numbers. `places` says where the sum of an id is.
template <class Block, class Lists, class Places, class Prepare, class Add>
RECFUSE_DEVICE void add_in_any_order(Block& block, const SparseRows& rows, const Lists& lists, const Places& places,
                                     std::int64_t row, int strip, const Prepare& prepare, const Add& add) {
  const std::int64_t end = rows.end(row);
  block.each_warp([&](int warp) {
    for (std::int64_t e = rows.begin(row) + warp; e < end; e += block.n_threads() / kWarp) {
      const std::int32_t column = rows.columns[e];
      const auto u = prepare(rows.value(e));
      const std::int64_t list_begin = lists.begin(column, strip), list_end = lists.end(column, strip);
      block.each_lane(warp, [&](int, int lane) {
        for (std::int64_t at = list_begin + lane; at < list_end; at += kWarp) {
          add(places.of(block, lists.ids[at]), u, lists.value(at));
        }
      });
    }
  });
  block.each_thread([](int) {});
}

/// Adds the lists of a row one after the other, for sums in float64 depend on the order: within one, every id is met
/// once, and between two there is a barrier.
template <class Block, class Lists, class Places, class Add>
RECFUSE_DEVICE void add_in_order(Block& block, const SparseRows& rows, const Lists& lists, const Places& places,
                                 std::int64_t row, int strip, const Add& add) {
  const std::int64_t end = rows.end(row);
  for (std::int64_t e = rows.begin(row); e < end; ++e) {
    const std::int32_t column = rows.columns[e];
    const std::int64_t list_begin = lists.begin(column, strip), list_end = lists.end(column, strip);
    if (list_begin == list_end) continue;
    const double u = rows.value(e);
    block.each_thread([&](int thread) {
      for (std::int64_t at = list_begin + thread; at < list_end; at += block.n_threads()) {
        add(places.of(block, lists.ids[at]), u, static_cast<double>(lists.value(at)));
      }
    });
  }
}

/// Whole numbers: exact in any order.
class CountSums {
 public:
  using Value = std::uint16_t;
  static constexpr StripKind kStrip = kCounted;
  static constexpr int kThreads = 512;

  RECFUSE_DEVICE CountSums(char* memory, int) : sums_(reinterpret_cast<int*>(memory)) {}

  RECFUSE_DEVICE void clear(int i) const { sums_[i] = 0; }
  RECFUSE_DEVICE void begin(int i, std::int32_t sum) const { sums_[i] = sum; }
  template <class Block, class Lists, class Places>
  RECFUSE_DEVICE void add_row(Block& block, const SparseRows& rows, const Lists& lists, const Places& places,
                              std::int64_t row, int strip, const Similarity& how) const {
    add_in_any_order(
        block, rows, lists, places, row, strip,
        [&](float u) { return rows.values == nullptr ? 1 : static_cast<int>(u * static_cast<float>(how.scale)); },
        [&](int i, int u, int v) { block.add_atomically(sums_ + i, u * v); });
  }
  /// Values are positive: a sum tells that there was a term, and of ones how many.
  RECFUSE_DEVICE bool counts(int i, const Similarity& how) const { return sums_[i] >= how.least; }
  /// No root and no division for what cannot rank. Roundings to float32 come to less than 7 * 2^-24 of the threshold,
  /// if that is not so small that float32 has fewer bits for it.
  RECFUSE_DEVICE SumLimit limit(float threshold, std::int64_t row, const Similarity& how) const {
    if (how.corated || !(threshold > 0x1p-100F)) return {0, -INFINITY};
    const float units = static_cast<float>(how.scale * how.scale), lowered = threshold * (1 - 0x1p-20F);
    return {lowered * units * how.norms[row], static_cast<float>(lowered * units * how.shrinkage)};
  }
  RECFUSE_DEVICE bool reaches(int i, std::int64_t id, const Similarity& how, const SumLimit& limit) const {
    return static_cast<float>(sums_[i]) >= how.norms[id] * limit.slope + limit.offset;
  }
  RECFUSE_DEVICE float score(int i, std::int64_t row, std::int64_t id, const Similarity& how) const {
    const double dot = sums_[i] / (how.scale * how.scale);
    // Of rows of ones, the shared entries are all that there is to a corated norm.
    const double u = how.corated ? dot : how.squared[row], v = how.corated ? dot : how.squared[id];
    return cosine(dot, u, v, how.shrinkage);
  }

 private:
  int* sums_;
};

/// Float64 sums in the order of the definition, and how many terms they have. `Terms` says what is added up per id,
/// and what the score is; `sums(j)` is the j-th of them.
template <class Terms>
class OrderedSums {
 public:
  using Value = float;
  static constexpr StripKind kStrip = Terms::kSums == 1 ? kFloat64 : Terms::kSums == 2 ? kTwoFloat64 : kThreeFloat64;
  static_assert(kStrip.sum_bytes == Terms::kSums * sizeof(double) + sizeof(int));
  static constexpr int kThreads = 256;

  RECFUSE_DEVICE OrderedSums(char* memory, int width)
      : sums_(reinterpret_cast<double*>(memory)),
        support_(reinterpret_cast<int*>(sums_ + static_cast<std::int64_t>(width) * Terms::kSums)) {}

  RECFUSE_DEVICE void clear(int i) const {
    for (int j = 0; j < Terms::kSums; ++j) of(i)(j) = 0;
    support_[i] = 0;
  }
  template <class Block, class Lists, class Places>
  RECFUSE_DEVICE void add_row(Block& block, const SparseRows& rows, const Lists& lists, const Places& places,
                              std::int64_t row, int strip, const Similarity&) const {
    add_in_order(block, rows, lists, places, row, strip, [&](int i, double u, double v) {
      Terms::add(of(i), u, v);
      ++support_[i];
    });
  }
  RECFUSE_DEVICE bool counts(int i, const Similarity& how) const { return support_[i] >= how.least; }
  RECFUSE_DEVICE float score(int i, std::int64_t row, std::int64_t id, const Similarity& how) const {
    return Terms::score(of(i), row, id, how);
  }

 private:
  RECFUSE_DEVICE auto of(int i) const {
    double* const first = sums_ + static_cast<std::int64_t>(i) * Terms::kSums;
    return [first](int j) -> double& { return first[j]; };
  }

  double* sums_;
  int* support_;
};

struct CosineTerms {
  static constexpr int kSums = 1;
  template <class Sums>
  RECFUSE_DEVICE static void add(const Sums& sums, double u, double v) {
    sums(0) += u * v;
  }
  template <class Sums>
  RECFUSE_DEVICE static float score(const Sums& sums, std::int64_t row, std::int64_t id, const Similarity& how) {
    return cosine(sums(0), how.squared[row], how.squared[id], how.shrinkage);
  }
};

/// Inner product and both norms over the entries that two rows share.
struct CoratedTerms {
  static constexpr int kSums = 3;
  template <class Sums>
  RECFUSE_DEVICE static void add(const Sums& sums, double u, double v) {
    sums(0) += u * v;
    sums(1) += u * u;
    sums(2) += v * v;
  }
  template <class Sums>
  RECFUSE_DEVICE static float score(const Sums& sums, std::int64_t, std::int64_t, const Similarity& how) {
    return cosine(sums(0), sums(1), sums(2), how.shrinkage);
  }
};

/// Of neighbour_topk(): the product itself.
struct ProductTerms {
  static constexpr int kSums = 1;
  template <class Sums>
  RECFUSE_DEVICE static void add(const Sums& sums, double u, double v) {
    sums(0) += u * v;
  }
  template <class Sums>
  RECFUSE_DEVICE static float score(const Sums& sums, std::int64_t, std::int64_t, const Similarity&) {
    return static_cast<float>(sums(0));
  }
};

/// The same, divided by the weights of its terms.
struct MeanTerms {
  static constexpr int kSums = 2;
  template <class Sums>
  RECFUSE_DEVICE static void add(const Sums& sums, double u, double v) {
    sums(0) += u * v;
    sums(1) += std::fabs(u);
  }
  template <class Sums>
  RECFUSE_DEVICE static float score(const Sums& sums, std::int64_t, std::int64_t, const Similarity&) {
    return sums(1) == 0 ? 0.0F : static_cast<float>(sums(0) / sums(1));
  }
};

}  // namespace recfuse::cuda
