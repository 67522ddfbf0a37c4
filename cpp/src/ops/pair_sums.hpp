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

constexpr std::int64_t kMostScreened = 1 << 14;  // numbers at a time
inline std::int64_t most_screened(const PairLists& lists) { return std::min(lists.range_size(), kMostScreened); }

/// Pairs with a row, found among so many at most.
struct PairRoom {
  std::vector<std::int32_t> ids;
  std::vector<std::uint64_t> keys;

  explicit PairRoom(std::int64_t most) : ids(static_cast<std::size_t>(most + kernels::kSpareHits)), keys(ids.size()) {}
  kernels::KeyedPairs pairs() { return {ids.data(), keys.data(), 0}; }
};

/// What a screen finds: numbers of rows whose sum may rank for either row of the pair, and those sums.
template <class T>
struct FoundPairs {
  std::vector<std::int32_t> ids;
  std::vector<T> dots;

  explicit FoundPairs(std::int64_t most)
      : ids(static_cast<std::size_t>(most + kernels::kSpareHits)), dots(ids.size()) {}
  kernels::PairHits<T> hits(std::int64_t base) { return {ids.data(), dots.data(), base}; }
};

/// Numbers of rows that a row meets together: they are in one range of the lists.
struct MetRange {
  std::int64_t range;
  std::int64_t begin;
  std::int64_t end;  // at most the row's own number
  bool own;          // which is in the range, too
};

/// Collects the parts of the lists that the rows of a run meet.
class RowParts {
 public:
  explicit RowParts(const PairLists& lists) : lists_(lists) {}

  void begin_run(std::int64_t first, std::int64_t last) {
    first_ = first;
    rows_.clear();
    for (std::int64_t number = first; number < last; ++number) rows_.push_back(lists_.entries(number));
  }
  /// `begins`: of the lists, where they are not those of the range. Parts without entries are left out.
  kernels::ListParts collect(std::int64_t number, const MetRange& met, const std::uint32_t* begins) {
    const auto at = static_cast<std::size_t>(number - first_);
    const kernels::RowEntries& row = rows_[at];
    if (at + 1 < rows_.size()) prefetch(rows_[at + 1], begins);
    if (parts_.size() < static_cast<std::size_t>(row.n) + 1) parts_.resize(static_cast<std::size_t>(row.n) + 1);
    const std::uint32_t* const ends = lists_.begins(met.range) + 1;
    std::int64_t n = 0;
    n_entries_ = 0;
    for (std::int64_t j = 0; j < row.n; ++j) {
      const std::uint32_t begin = begins[row.columns[j]], end = met.own ? row.places[j] : ends[row.columns[j]];
      parts_[static_cast<std::size_t>(n)] = {begin, end, row.values[j]};
      // A list whose first entries are in blocks may begin behind the row's own.
      n += end > begin;
      n_entries_ += end > begin ? end - begin : 0;
    }
    return {lists_.kind(), lists_.words(), parts_.data(), n};
  }
  /// Entries of what was collected.
  std::int64_t n_entries() const { return n_entries_; }

 private:
  static constexpr std::int64_t kAhead = 64;  // columns of the next row; a long one has time to fetch its own

  /// Where lists begin is all over the table.
  static void prefetch(const kernels::RowEntries& row, const std::uint32_t* begins) {
    const std::int64_t n = std::min(row.n, kAhead);
    for (std::int64_t j = 0; j < n; ++j) __builtin_prefetch(begins + row.columns[j]);
  }

  const PairLists& lists_;
  std::int64_t first_ = 0;
  std::vector<kernels::RowEntries> rows_;
  std::vector<kernels::ListPart> parts_;
  std::int64_t n_entries_ = 0;
};

/// Marks of the groups of sums that something was added to, where looking at all sums would take longer.
class Marks {
 public:
  explicit Marks(std::int64_t n_rows) : marks_(static_cast<std::size_t>(n_rows / kernels::kTouchedIds + 1)) {}

  /// Whether to mark, where `entries` are added and n sums looked at.
  std::uint8_t* choose(std::int64_t entries, std::int64_t n) {
    // A group found by its mark costs as much as some 16 sums in a row.
    return entries < n / 16 ? marks_.data() : nullptr;
  }
  void wipe(std::int64_t n) {
    std::fill_n(marks_.data(), (n + kernels::kTouchedIds - 1) / kernels::kTouchedIds, std::uint8_t{0});
  }

 private:
  std::vector<std::uint8_t> marks_;
};

class CountPairs {
 public:
  CountPairs(const kernels::KernelTable& kernels, const PairLists& lists, const ByteBlocks& blocks,
             std::span<const float> norms, std::span<const double> squared, float scale, double shrinkage,
             std::int64_t least)
      : kernels_(kernels),
        lists_(lists),
        begins_(blocks.begins().data()),
        norms_(norms),
        squared_(squared),
        scale_(scale),
        units_(static_cast<double>(scale) * static_cast<double>(scale)),
        shrinkage_(shrinkage),
        least_(saturated(least)),
        blocks_(lists, blocks, kernels, scale),
        found_(most_screened(lists)),
        sums_(static_cast<std::size_t>(std::min(lists.range_size(), lists.n_rows()))),
        parts_(lists),
        marks_(static_cast<std::int64_t>(sums_.size())) {}

  void begin_run(std::int64_t first, std::int64_t last) {
    blocks_.compute(first, last);
    parts_.begin_run(first, last);
  }
  void add(std::int64_t number, const MetRange& met) {
    number_ = number;
    width_ = met.range == 0 ? blocks_.width(number) : 0;
    base_ = met.begin;
    const kernels::ListParts parts = parts_.collect(number, met, met.range == 0 ? begins_ : lists_.begins(met.range));
    touched_ = marks_.choose(parts_.n_entries(), met.end - met.begin - width_);
    kernels_.add_earlier_counts(parts, scale_, sums_.data(), touched_);
    if (touched_ != nullptr) marks_.wipe(width_);
  }
  /// Ids from here up to `last` may be looked at in one go.
  std::int64_t together(std::int64_t last) const { return base_ + (last > base_ + width_ ? width_ : 0); }
  /// Finds what reaches the thresholds of either row among [first, last), kMostScreened at most.
  void screen(std::int64_t first, std::int64_t last, float threshold, const float* thresholds, kernels::KeyedPairs& own,
              kernels::KeyedPairs& others) {
    const std::int64_t from = first - base_;
    const auto hits = found_.hits(first);
    const bool in_blocks = from < width_;
    const kernels::EarlierCounts sums{
        &sums_[at(from)], in_blocks ? blocks_.of(number_) + first : nullptr,
        in_blocks || touched_ == nullptr ? nullptr : touched_ + from / kernels::kTouchedIds};
    const std::int64_t n = kernels_.screen_earlier_counts(
        sums, &norms_[at(first)], thresholds + first, last - first,
        {norms_[at(number_)], static_cast<float>(shrinkage_ * units_), threshold, least_}, hits);
    kernels_.share_counts(
        hits, n,
        {squared_[at(number_)], squared_.data(), 1 / units_, shrinkage_, threshold, lists_.row(number_), lists_.rows()},
        thresholds, own, others);
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  const kernels::KernelTable& kernels_;
  const PairLists& lists_;
  const std::uint32_t* begins_;   // of the lists of the first range, without what is in blocks
  std::span<const float> norms_;  // in units
  std::span<const double> squared_;
  float scale_;
  double units_;
  double shrinkage_;
  std::uint32_t least_;
  BlockSums blocks_;
  FoundPairs<std::uint32_t> found_;
  AlignedVector<std::uint32_t> sums_;
  RowParts parts_;
  Marks marks_;
  std::int64_t number_ = 0;  // of the row
  std::int64_t base_ = 0;    // of the numbers that it meets,
  std::int64_t width_ = 0;   // of which so many have sums of blocks
  std::uint8_t* touched_ = nullptr;
};

class RealPairs {
 public:
  /// Counts the terms of a sum where `support` is asked for, to tell a sum of 0 from none.
  RealPairs(const kernels::KernelTable& kernels, const PairLists& lists, std::span<const double> norms,
            std::span<const double> squared, double shrinkage, bool support, std::int64_t least)
      : kernels_(kernels),
        lists_(lists),
        norms_(norms),
        squared_(squared),
        shrinkage_(shrinkage),
        least_(saturated(least)),
        found_(most_screened(lists)),
        sums_(static_cast<std::size_t>(std::min(lists.range_size(), lists.n_rows()))),
        support_(support ? sums_.size() : 0),
        parts_(lists),
        marks_(static_cast<std::int64_t>(sums_.size())) {}

  void begin_run(std::int64_t first, std::int64_t last) { parts_.begin_run(first, last); }
  void add(std::int64_t number, const MetRange& met) {
    number_ = number;
    base_ = met.begin;
    const kernels::ListParts parts = parts_.collect(number, met, lists_.begins(met.range));
    touched_ = marks_.choose(parts_.n_entries(), met.end - met.begin);
    kernels_.add_earlier_reals(parts, sums_.data(), support_.empty() ? nullptr : support_.data(), touched_);
  }
  std::int64_t together(std::int64_t) const { return base_; }
  void screen(std::int64_t first, std::int64_t last, float threshold, const float* thresholds, kernels::KeyedPairs& own,
              kernels::KeyedPairs& others) {
    const std::int64_t from = first - base_;
    const auto hits = found_.hits(first);
    const kernels::EarlierReals sums{&sums_[at(from)], support_.empty() ? nullptr : &support_[at(from)],
                                     touched_ == nullptr ? nullptr : touched_ + from / kernels::kTouchedIds};
    const std::int64_t n = kernels_.screen_earlier_reals(sums, &norms_[at(first)], thresholds + first, last - first,
                                                         {norms_[at(number_)], shrinkage_, threshold, least_}, hits);
    kernels_.share_reals(
        hits, n, {squared_[at(number_)], squared_.data(), 1, shrinkage_, threshold, lists_.row(number_), lists_.rows()},
        thresholds, own, others);
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  const kernels::KernelTable& kernels_;
  const PairLists& lists_;
  std::span<const double> norms_;
  std::span<const double> squared_;
  double shrinkage_;
  std::uint32_t least_;
  FoundPairs<double> found_;
  AlignedVector<double> sums_;
  std::vector<std::uint32_t> support_;
  RowParts parts_;
  Marks marks_;
  std::int64_t number_ = 0;
  std::int64_t base_ = 0;
  std::uint8_t* touched_ = nullptr;
};

}  // namespace recfuse
