// Sums of real weights that tell which ids may rank: whole numbers, so that warps add in any order. The scores
// themselves are the canonical ones of the ids that are left.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "best_keys.cuh"
#include "rank.cuh"
#include "sparse_sums.cuh"

namespace recfuse::cuda {

constexpr double kFixedUnit = 0x1p15;  // of a row of length 1: by Cauchy-Schwarz no sum of products exceeds 2^30

/// A value as a share of its row's length.
struct ShareOf {
  using Value = float;
  const double* squared;  // |row|^2
  RECFUSE_DEVICE static double scale(double squared) { return squared == 0 ? 0 : kFixedUnit / std::sqrt(squared); }
  RECFUSE_DEVICE float operator()(float value, std::int64_t row) const {
    return static_cast<float>(value * scale(squared[row]));
  }
};

/// Products are cut off to whole numbers, so each is off by less than 1; where values are positive 1 is added, and a
/// sum tells that there was a term. `kSupport`: terms are counted beside.
template <bool kSupport>
class FixedSums {
 public:
  using Value = float;
  static constexpr bool kScreens = true;
  static constexpr StripKind kStrip = kSupport ? kFixedWithSupport : kFixedPoint;
  static constexpr int kThreads = 512;
  /// Of a row: partial sums stay below 2^31, whatever is added to each product.
  static constexpr std::int64_t kMostEntries = 1 << 29;

  RECFUSE_DEVICE FixedSums(char* memory, int width)
      : sums_(reinterpret_cast<int*>(memory)), support_(kSupport ? sums_ + width : nullptr) {}

  RECFUSE_DEVICE void clear(int i) const {
    sums_[i] = 0;
    if constexpr (kSupport) support_[i] = 0;
  }
  template <class Block, class Lists, class Places>
  RECFUSE_DEVICE void add_row(Block& block, const SparseRows& rows, const Lists& lists, const Places& places,
                              std::int64_t row, int strip, const Similarity& how) const {
    const double scale = ShareOf::scale(how.squared[row]);
    add_in_any_order(
        block, rows, lists, places, row, strip, [&](float u) { return static_cast<float>(u * scale); },
        [&](int i, float u, float v) {
          const int product = static_cast<int>(u * v);
          block.add_atomically(sums_ + i, kSupport ? product : product + 1);
          if constexpr (kSupport) block.add_atomically(support_ + i, 1);
        });
  }
  RECFUSE_DEVICE bool counts(int i, const Similarity& how) const {
    return kSupport ? support_[i] >= how.least : sums_[i] > 0;
  }
  /// Of a score below, at most: the products' roundings to float32 come to less than 2^30 * 4 * 2^-24 = 256, those of
  /// a score of at most 1, here and by the definition, to less than 2^-22; and shrinkage makes both smaller.
  RECFUSE_DEVICE static double bound(std::int64_t n_entries) {
    return (static_cast<double>(n_entries) + 512) / (kFixedUnit * kFixedUnit) + 0x1p-22;
  }
  /// Nearly the score.
  RECFUSE_DEVICE float score(int i, std::int64_t row, std::int64_t id, const Similarity& how) const {
    const float share = static_cast<float>(sums_[i]) * 0x1p-30F;
    if (how.shrinkage == 0) return share;
    const double norms = std::sqrt(how.squared[row] * how.squared[id]);
    return static_cast<float>(share * (norms / (norms + how.shrinkage)));
  }

 private:
  int *sums_, *support_;
};

/// Canonical scores of pairs of rows, a warp each: the lanes look for the entries of the shorter row in the longer one,
/// and the first adds up what they have found, in order.
template <class Terms>
struct RescoreRows {
  /// Of a warp, in shared memory.
  struct Scratch {
    double sums[Terms::kSums];
    double u[kWarp], v[kWarp];  // of entries that both rows have
    int found[kWarp];
    int support;
  };

  SparseRows rows;
  Similarity how;

  /// 0: too few shared entries.
  template <class Block>
  RECFUSE_DEVICE void key_of(Block& block, int warp, Scratch& scratch, std::int64_t row, std::int32_t id,
                             std::uint64_t* key) const {
    const bool short_row = rows.size(row) <= rows.size(id);
    const std::int64_t a = short_row ? row : id, b = short_row ? id : row;
    const std::int64_t end = rows.end(a);
    block.each_lane(warp, [&](int, int lane) {
      if (lane > 0) return;
      for (double& sum : scratch.sums) sum = 0;
      scratch.support = 0;
    });
    block.sync_warp();
    for (std::int64_t first = rows.begin(a); first < end; first += kWarp) {
      block.each_lane(warp, [&](int, int lane) { look_up(scratch, first + lane, end, b, short_row, lane); });
      block.sync_warp();
      block.each_lane(warp, [&](int, int lane) {
        if (lane == 0) add_up(scratch);
      });
      block.sync_warp();
    }
    block.each_lane(warp, [&](int, int lane) {
      if (lane > 0) return;
      const auto sum = [&](int j) -> double& { return scratch.sums[j]; };
      *key = scratch.support < how.least ? 0 : ranking_key(Terms::score(sum, row, id, how), id);
    });
    block.sync_warp();
  }

 private:
  RECFUSE_DEVICE void look_up(Scratch& scratch, std::int64_t entry, std::int64_t end, std::int64_t other, bool is_u,
                              int lane) const {
    scratch.found[lane] = 0;
    if (entry >= end) return;
    const std::int32_t column = rows.columns[entry];
    const std::int64_t begin = rows.begin(other), n = rows.size(other);
    const std::int64_t at = first_not_below(rows.columns + begin, n, column);
    if (at >= n || rows.columns[begin + at] != column) return;
    const double mine = rows.value(entry), others = rows.value(begin + at);
    scratch.u[lane] = is_u ? mine : others;
    scratch.v[lane] = is_u ? others : mine;
    scratch.found[lane] = 1;
  }
  RECFUSE_DEVICE void add_up(Scratch& scratch) const {
    for (int i = 0; i < kWarp; ++i) {
      if (scratch.found[i] == 0) continue;
      Terms::add([&](int j) -> double& { return scratch.sums[j]; }, scratch.u[i], scratch.v[i]);
      ++scratch.support;
    }
  }
};

}  // namespace recfuse::cuda
