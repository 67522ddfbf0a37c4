// Lists of the k best and scored pairs of a range of items, on the host: what shards find, and how it becomes one
// answer.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "items.cuh"
#include "recfuse/canonical.hpp"
#include "recfuse/views.hpp"

namespace recfuse::cuda {

/// Ids and scores (n, k), and where there are any, terms (n, k, n_terms).
class ShardLists {
 public:
  ShardLists() = default;
  ShardLists(std::int64_t n, std::int64_t k, std::int64_t n_terms)
      : n_(n),
        k_(k),
        n_terms_(n_terms),
        ids_(std::make_unique_for_overwrite<std::int32_t[]>(size())),
        scores_(std::make_unique_for_overwrite<float[]>(size())),
        terms_(std::make_unique_for_overwrite<double[]>(size() * static_cast<std::size_t>(n_terms))) {}

  std::int64_t k() const { return k_; }
  TopkOut out() const { return {{ids_.get(), n_, k_}, {scores_.get(), n_, k_}}; }
  MatrixView<double> parts() const {
    return n_terms_ == 0 ? MatrixView<double>{} : MatrixView<double>{terms_.get(), n_, k_ * n_terms_};
  }

  /// Of an entry; 0 where the list has ended.
  std::uint64_t key(std::int64_t q, std::int64_t i) const {
    const std::int64_t at = q * k_ + i;
    return i == k_ || ids_[at] < 0 ? 0 : ranking_key(scores_[at], ids_[at]);
  }
  void take(std::int64_t q, std::int64_t i, const ShardLists& from, std::int64_t j) {
    const std::int64_t at = q * k_ + i, there = q * from.k_ + j;
    ids_[at] = from.ids_[there];
    scores_[at] = from.scores_[there];
    std::copy_n(from.terms_.get() + there * n_terms_, n_terms_, terms_.get() + at * n_terms_);
  }
  void pad(std::int64_t q, std::int64_t i) {
    const std::int64_t at = q * k_ + i;
    ids_[at] = -1;
    scores_[at] = -INFINITY;
    std::fill_n(terms_.get() + at * n_terms_, n_terms_, 0.0);
  }

  /// To the host or to a device.
  template <class Device>
  void copy_to(const TopkOut& out, const MatrixView<double>& parts) const {
    using Ids = typename Device::template HostArray<std::int32_t>;
    using Scores = typename Device::template HostArray<float>;
    using Terms = typename Device::template HostArray<double>;
    Ids::copy_to(out.ids.data, ids_.get(), size());
    Scores::copy_to(out.scores.data, scores_.get(), size());
    Terms::copy_to(parts.data, terms_.get(), size() * static_cast<std::size_t>(n_terms_));
  }

 private:
  std::size_t size() const { return static_cast<std::size_t>(n_ * k_); }

  std::int64_t n_ = 0, k_ = 0, n_terms_ = 0;
  std::unique_ptr<std::int32_t[]> ids_;
  std::unique_ptr<float[]> scores_;
  std::unique_ptr<double[]> terms_;
};

/// The best of a query's lists. No two have the same item, so no two keys are alike.
inline void merge_lists(std::span<const ShardLists> lists, std::int64_t q, ShardLists& best) {
  std::vector<std::int64_t> next(lists.size(), 0);
  std::vector<std::uint64_t> keys;
  for (const ShardLists& list : lists) keys.push_back(list.key(q, 0));
  for (std::int64_t i = 0; i < best.k(); ++i) {
    const auto s = static_cast<std::size_t>(std::max_element(keys.begin(), keys.end()) - keys.begin());
    if (keys[s] == 0) {
      best.pad(q, i);
      continue;
    }
    best.take(q, i, lists[s], next[s]);
    keys[s] = lists[s].key(q, ++next[s]);
  }
}

/// Of pairs of queries and items those whose item is in a range, and room for what is found of them.
class ShardPairs {
 public:
  ShardPairs(const CsrView& all, const ItemRange& range, std::int64_t n_terms)
      : rows_(all.rows), cols_(all.cols), n_terms_(n_terms), indptr_{0} {
    for (std::int64_t q = 0; q < all.rows; ++q) {
      const std::int32_t* const ids = all.row_indices(q);
      for (std::int64_t i = 0; i < all.row_size(q); ++i) {
        if (!range.has(ids[i])) continue;
        ids_.push_back(ids[i]);
        at_.push_back(all.indptr[q] - all.indptr[0] + i);
      }
      indptr_.push_back(static_cast<std::int64_t>(ids_.size()));
    }
    scores_.resize(ids_.size());
    terms_.resize(ids_.size() * static_cast<std::size_t>(n_terms));
  }

  CsrView pairs() const { return {indptr_.data(), ids_.data(), nullptr, rows_, cols_}; }
  std::span<float> scores() { return scores_; }
  MatrixView<double> parts() {
    return n_terms_ == 0 ? MatrixView<double>{}
                         : MatrixView<double>{terms_.data(), static_cast<std::int64_t>(ids_.size()), n_terms_};
  }

  void write(std::span<float> scores, const MatrixView<double>& parts) const {
    for (std::size_t i = 0; i < at_.size(); ++i) {
      scores[static_cast<std::size_t>(at_[i])] = scores_[i];
      if (n_terms_ == 0) continue;
      std::copy_n(terms_.begin() + static_cast<std::ptrdiff_t>(i) * n_terms_, n_terms_, parts.row(at_[i]));
    }
  }

 private:
  std::int64_t rows_, cols_, n_terms_;
  std::vector<std::int64_t> indptr_, at_;  // the latter: places among all pairs
  std::vector<std::int32_t> ids_;
  std::vector<float> scores_;
  std::vector<double> terms_;
};

}  // namespace recfuse::cuda
