// The inner products of a row with those that have smaller numbers: whole numbers or float64, for one thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "aligned.hpp"
#include "kernels/table.hpp"
#include "ops/byte_blocks.hpp"
#include "ops/pair_lists.hpp"
#include "ops/sparse_sums.hpp"

namespace recfuse {

/// Ids whose sum may rank for either row of the pair, those sums, and nearly the scores.
template <class T>
struct FoundPairs {
  std::vector<std::int32_t> ids;
  std::vector<T> dots;
  std::vector<float> scores;
  std::int64_t n = 0;

  explicit FoundPairs(std::int64_t most)
      : ids(static_cast<std::size_t>(most + kernels::kSpareHits)), dots(ids.size()), scores(ids.size()) {}
  /// The next ones go behind those that there are.
  kernels::PairHits<T> next(std::int64_t base) { return {&ids[n_()], &dots[n_()], &scores[n_()], base}; }

 private:
  std::size_t n_() const { return static_cast<std::size_t>(n); }
};

/// Marks of the groups of sums that something was added to, where looking at all sums would take longer.
class Marks {
 public:
  explicit Marks(std::int64_t n_rows) : marks_(static_cast<std::size_t>(n_rows / kernels::kTouchedIds + 1)) {}

  /// Whether to mark, for a row that looks at the ids in [first, last).
  std::uint8_t* choose(const kernels::PackedLists& lists, const kernels::RowEntries& row, std::int64_t first,
                       std::int64_t last) {
    // A group found by its mark costs as much as some 16 sums in a row.
    const std::int64_t worthwhile = (last - first) / 16;
    std::int64_t entries = row.n;
    for (std::int64_t j = 0; j < row.n && entries < worthwhile; ++j) {
      entries += std::max<std::int64_t>(0, std::int64_t{row.places[j]} - lists.begins[row.columns[j]]);
    }
    return entries < worthwhile ? marks_.data() : nullptr;
  }
  void wipe(std::int64_t n) {
    std::fill_n(marks_.data(), (n + kernels::kTouchedIds - 1) / kernels::kTouchedIds, std::uint8_t{0});
  }

 private:
  std::vector<std::uint8_t> marks_;
};

/// How far a row looks, and how.
struct EarlierRange {
  std::int64_t n = 0;      // ids in [0, n)
  std::int64_t width = 0;  // of which those below this have sums of blocks
  std::uint8_t* marks = nullptr;
};

class CountPairs {
 public:
  using Found = FoundPairs<std::uint32_t>;

  CountPairs(const kernels::KernelTable& kernels, const PairLists& lists, const ByteBlocks& blocks,
             std::span<const float> norms, float scale, double shrinkage, std::int64_t least)
      : kernels_(kernels),
        lists_(lists),
        packed_{lists.kind(), lists.words(), blocks.begins().data()},
        norms_(norms),
        scale_(scale),
        units_(static_cast<double>(scale) * static_cast<double>(scale)),
        shrinkage_(static_cast<float>(shrinkage * units_)),
        least_(saturated(least)),
        blocks_(lists, blocks, kernels, scale),
        sums_(norms.size()),
        marks_(lists.n_rows()) {}

  void begin_run(std::int64_t first, std::int64_t last) { blocks_.compute(first, last); }
  void add(std::int64_t number) {
    const kernels::RowEntries row = lists_.entries(number);
    number_ = number;
    range_ = {number, blocks_.width(number), nullptr};
    range_.marks = marks_.choose(packed_, row, range_.width, number);
    kernels_.add_earlier_counts(packed_, row, scale_, sums_.data(), range_.marks);
    if (range_.marks != nullptr) marks_.wipe(range_.width);
  }
  /// Ids from here up to `last` may be looked at in one go.
  std::int64_t together(std::int64_t last) const { return last > range_.width ? range_.width : 0; }
  /// Adds what is worth it of [first, last) to what was found.
  void screen(std::int64_t first, std::int64_t last, float threshold, const float* thresholds, Found& found) {
    const bool in_blocks = first < range_.width;
    const kernels::EarlierCounts sums{
        &sums_[at(first)], in_blocks ? blocks_.of(number_) + first : nullptr,
        in_blocks || range_.marks == nullptr ? nullptr : range_.marks + first / kernels::kTouchedIds};
    found.n += kernels_.screen_earlier_counts(sums, &norms_[at(first)], thresholds + first, last - first,
                                              {norms_[at(number_)], shrinkage_, threshold, least_}, found.next(first));
  }
  double dot(std::uint32_t sum) const { return sum / units_; }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  const kernels::KernelTable& kernels_;
  const PairLists& lists_;
  kernels::PackedLists packed_;
  std::span<const float> norms_;  // in units
  float scale_;
  double units_;
  float shrinkage_;
  std::uint32_t least_;
  BlockSums blocks_;
  AlignedVector<std::uint32_t> sums_;
  Marks marks_;
  std::int64_t number_ = 0;
  EarlierRange range_;
};

class RealPairs {
 public:
  using Found = FoundPairs<double>;

  /// Counts the terms of a sum where `support` is asked for, to tell a sum of 0 from none.
  RealPairs(const kernels::KernelTable& kernels, const PairLists& lists, std::span<const double> norms,
            double shrinkage, bool support, std::int64_t least)
      : kernels_(kernels),
        lists_(lists),
        packed_{lists.kind(), lists.words(), lists.begins().data()},
        norms_(norms),
        shrinkage_(shrinkage),
        least_(saturated(least)),
        sums_(norms.size()),
        support_(support ? norms.size() : 0),
        marks_(lists.n_rows()) {}

  void begin_run(std::int64_t, std::int64_t) {}
  void add(std::int64_t number) {
    const kernels::RowEntries row = lists_.entries(number);
    number_ = number;
    range_ = {number, 0, marks_.choose(packed_, row, 0, number)};
    kernels_.add_earlier_reals(packed_, row, sums_.data(), support_.empty() ? nullptr : support_.data(), range_.marks);
  }
  std::int64_t together(std::int64_t) const { return 0; }
  void screen(std::int64_t first, std::int64_t last, float threshold, const float* thresholds, Found& found) {
    const kernels::EarlierReals sums{&sums_[at(first)], support_.empty() ? nullptr : &support_[at(first)],
                                     range_.marks == nullptr ? nullptr : range_.marks + first / kernels::kTouchedIds};
    found.n += kernels_.screen_earlier_reals(sums, &norms_[at(first)], thresholds + first, last - first,
                                             {norms_[at(number_)], shrinkage_, threshold, least_}, found.next(first));
  }
  double dot(double sum) const { return sum; }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  const kernels::KernelTable& kernels_;
  const PairLists& lists_;
  kernels::PackedLists packed_;
  std::span<const double> norms_;
  double shrinkage_;
  std::uint32_t least_;
  AlignedVector<double> sums_;
  std::vector<std::uint32_t> support_;
  Marks marks_;
  std::int64_t number_ = 0;
  EarlierRange range_;
};

}  // namespace recfuse
