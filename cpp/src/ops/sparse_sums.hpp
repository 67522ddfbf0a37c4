// One sum per id, of a sparse row times a sparse matrix: three ways to keep it, each with its screen.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/table.hpp"

namespace recfuse {

/// An inner product is worth a score if it reaches norm * slope + offset.
struct DotLimit {
  double slope;
  double offset;
};

constexpr DotLimit kNoLimit{0, -std::numeric_limits<double>::infinity()};

/// No two rows share 2^32 - 1 entries: there are fewer columns.
inline std::uint32_t saturated(std::int64_t support) {
  return static_cast<std::uint32_t>(std::min<std::int64_t>(support, std::numeric_limits<std::uint32_t>::max()));
}

/// Whole numbers, where every value times `scale` is one; `ones` where each is 1.
class CountSums {
 public:
  CountSums(const kernels::KernelTable& kernels, const kernels::PostingLists& lists, std::span<const float> norms,
            bool ones, float scale, std::int64_t least)
      : kernels_(kernels),
        lists_(lists),
        norms_(norms),
        ones_(ones),
        scale_(scale),
        units_(static_cast<double>(scale) * static_cast<double>(scale)),
        least_(saturated(least)),
        sums_(norms.size()) {}

  void add(const std::int32_t* columns, const float* weights, std::int64_t n) {
    if (ones_) return kernels_.add_counts(lists_, columns, n, sums_.data());
    kernels_.add_integers(lists_, columns, weights, scale_, n, sums_.data());
  }
  std::int64_t screen(std::int64_t first, std::int64_t n, const DotLimit& limit, std::int32_t* hits) const {
    return kernels_.screen_counts(&sums_[at(first)], &norms_[at(first)], n, bound(limit), hits);
  }
  bool reaches(std::int32_t id, const DotLimit& limit) const {
    const auto b = bound(limit);
    const std::uint32_t sum = sums_[at(id)];
    return sum >= least_ && static_cast<float>(sum) >= norms_[at(id)] * b.slope + b.offset;
  }
  double dot(std::int32_t id) const { return sums_[at(id)] / units_; }
  void clear(std::int64_t first, std::int64_t n) { std::fill_n(&sums_[at(first)], n, 0U); }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  kernels::SumBound<float> bound(const DotLimit& limit) const {
    return {static_cast<float>(limit.slope * units_), static_cast<float>(limit.offset * units_), least_};
  }

  const kernels::KernelTable& kernels_;
  kernels::PostingLists lists_;
  std::span<const float> norms_;
  bool ones_;
  float scale_;
  double units_;  // that a product of 1 counts for
  std::uint32_t least_;
  std::vector<std::uint32_t> sums_;
};

/// Float64. Without `support`, values are positive and a sum above 0 tells that there was a term.
class RealSums {
 public:
  /// `norms` may be empty: limits then have slope 0.
  RealSums(const kernels::KernelTable& kernels, const kernels::PostingLists& lists, std::int64_t n_ids,
           std::span<const double> norms, bool support, std::int64_t least)
      : kernels_(kernels),
        lists_(lists),
        norms_(norms),
        least_(saturated(least)),
        sums_(at(n_ids)),
        support_(support ? at(n_ids) : 0) {}

  void add(const std::int32_t* columns, const float* weights, std::int64_t n) {
    kernels_.add_reals(lists_, columns, weights, n, sums_.data(), support_.empty() ? nullptr : support_.data());
  }
  std::int64_t screen(std::int64_t first, std::int64_t n, const DotLimit& limit, std::int32_t* hits) const {
    return kernels_.screen_reals(&sums_[at(first)], support_.empty() ? nullptr : &support_[at(first)],
                                 norms_.empty() ? nullptr : &norms_[at(first)], n, {limit.slope, limit.offset, least_},
                                 hits);
  }
  bool reaches(std::int32_t id, const DotLimit& limit) const {
    const double sum = sums_[at(id)];
    const bool there = support_.empty() ? sum > 0 : support_[at(id)] >= least_;
    // Not &&: which of the two fails is hard to guess.
    return there & (sum >= (norms_.empty() ? 0 : norms_[at(id)] * limit.slope) + limit.offset);
  }
  double dot(std::int32_t id) const { return sums_[at(id)]; }
  bool can_take() const { return support_.empty() && norms_.empty(); }
  /// Clears the sums of `ids`, but those that reach the limit, whose ids it moves to `hits`; returns how many.
  template <class Id>
  std::size_t take(const Id* ids, std::int64_t n, const DotLimit& limit, std::int32_t* hits) {
    taken_.resize(std::max(taken_.size(), at(n)));
    std::size_t found = 0;
    for (std::int64_t e = 0; e < n; ++e) {
      double& sum = sums_[at(ids[e])];
      hits[found] = ids[e];
      taken_[found] = sum;
      found += static_cast<std::size_t>((sum > 0) & (sum >= limit.offset));
      sum = 0;
    }
    for (std::size_t i = 0; i < found; ++i) sums_[at(hits[i])] = taken_[i];
    return found;
  }
  void clear(std::int64_t first, std::int64_t n) {
    std::fill_n(&sums_[at(first)], n, 0.0);
    if (!support_.empty()) std::fill_n(&support_[at(first)], n, 0U);
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  const kernels::KernelTable& kernels_;
  kernels::PostingLists lists_;
  std::span<const double> norms_;
  std::uint32_t least_;
  std::vector<double> sums_;
  std::vector<std::uint32_t> support_;
  std::vector<double> taken_;
};

/// Inner product and both norms over the entries that two rows share.
class CoratedRowSums {
 public:
  CoratedRowSums(const kernels::KernelTable& kernels, const kernels::PostingLists& lists, std::int64_t n_ids,
                 std::int64_t least)
      : kernels_(kernels), lists_(lists), least_(static_cast<double>(least)), sums_(at(n_ids)) {}

  void add(const std::int32_t* columns, const float* weights, std::int64_t n) {
    kernels_.add_corated(lists_, columns, weights, n, sums_.data());
  }
  std::int64_t screen(std::int64_t first, std::int64_t n, const DotLimit& limit, std::int32_t* hits) const {
    std::int64_t found = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      hits[found] = static_cast<std::int32_t>(i);
      found += reaches(static_cast<std::int32_t>(first + i), limit);
    }
    return found;
  }
  /// The norm of a limit is here the product of the two norms, which only a square root would tell.
  bool reaches(std::int32_t id, const DotLimit& limit) const {
    const auto& s = sums_[at(id)];
    if (s.support < least_) return false;
    const double rest = s.dot - limit.offset;
    return limit.slope <= 0 || (rest >= 0 && rest * rest >= limit.slope * limit.slope * (s.squared_u * s.squared_v));
  }
  const kernels::CoratedSums& sums(std::int32_t id) const { return sums_[at(id)]; }
  void clear(std::int64_t first, std::int64_t n) { std::fill_n(&sums_[at(first)], n, kernels::CoratedSums{}); }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  const kernels::KernelTable& kernels_;
  kernels::PostingLists lists_;
  double least_;
  std::vector<kernels::CoratedSums> sums_;
};

}  // namespace recfuse
