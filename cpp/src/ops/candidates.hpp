// What the screen keeps of every query: items that can still be among the k best.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/table.hpp"
#include "ops/exact_topk.hpp"
#include "ops/query_block.hpp"

namespace recfuse {

/// What workers that divide the items tell one another: the highest threshold that any of them has found for a query.
/// Whatever is read is a valid one, however late.
class SharedThresholds {
 public:
  explicit SharedThresholds(std::int64_t n_queries) : thresholds_(static_cast<std::size_t>(n_queries)) { clear(); }

  void clear() {
    for (auto& t : thresholds_) t.store(-std::numeric_limits<float>::infinity(), std::memory_order_relaxed);
  }
  float get(std::size_t row) const { return thresholds_[row].load(std::memory_order_relaxed); }
  void raise(std::size_t row, float at_least) {
    float known = get(row);
    while (known < at_least && !thresholds_[row].compare_exchange_weak(known, at_least, std::memory_order_relaxed)) {
    }
  }

 private:
  std::vector<std::atomic<float>> thresholds_;
};

/// Candidates of the queries [first, last), with a threshold each that k scores are known to reach. No item whose
/// upper bound is below the threshold can be among the k best.
class Candidates {
 public:
  /// `room`: for so many candidates per query, more than k. `shared`: with other workers, or null.
  Candidates(const Queries& queries, const Filters& filters, std::int64_t max_queries, std::int64_t room,
             SharedThresholds* shared);

  static std::int64_t bytes_per_query(std::int64_t room) { return 12 * (room + kernels::kSpareCandidates); }

  void start(std::int64_t first, std::int64_t last);

  /// -inf before there are k.
  float threshold(std::int64_t q) const { return thresholds_[row(q)]; }
  void raise_threshold(std::int64_t q, float at_least);
  /// Takes over what other workers have found.
  void catch_up(std::int64_t q) {
    if (shared_ != nullptr) raise_threshold(q, shared_->get(row(q)));
  }

  /// Adds an item whose score is within `bound` > 0 of `value`; true if that raised the threshold.
  bool push(std::int64_t q, double value, double bound, std::int32_t id) {
    std::int32_t& count = counts_[row(q)];
    const std::size_t at = first_entry(q) + static_cast<std::size_t>(count++);
    values_[at] = static_cast<float>(value);
    // A little more than the bound, for the roundings of value, value - bound and value + bound.
    bounds_[at] = static_cast<float>(bound * (1 + 0x1p-20) + std::abs(value) * 0x1p-22);
    ids_[at] = id;
    return count == room_ && compact(q);
  }

  /// How many items were scored canonically, all queries together.
  std::int64_t n_scored() const { return n_scored_.load(std::memory_order_relaxed); }

  /// Scores canonically what may be among the k best. Threads may do so for different queries at the same time.
  void rescore(std::int64_t q, ExactTopk& best);

 private:
  class Exclusions;

  std::size_t row(std::int64_t q) const { return static_cast<std::size_t>(q - first_); }
  std::size_t first_entry(std::int64_t q) const {
    return row(q) * static_cast<std::size_t>(room_ + kernels::kSpareCandidates);
  }
  bool compact(std::int64_t q);
  void drop_refused(std::int64_t q);
  void drop_hopeless(std::int64_t q, bool score_best);
  void keep_best_exactly(std::int64_t q);
  int score(std::int64_t q, std::size_t entry);
  void score_most_promising(std::int64_t q, ExactTopk& best);

  const Queries& queries_;
  const Filters& filters_;
  SharedThresholds* shared_;
  std::int64_t room_;
  std::int64_t first_ = 0;
  // (queries, room): the score is within bound of value; a bound of 0 says that value is the score.
  std::vector<float> values_, bounds_;
  std::vector<std::int32_t> ids_;
  std::vector<std::int32_t> counts_;
  std::vector<std::int32_t> admitted_;  // the first so many passed the filters already
  std::vector<float> thresholds_;
  std::atomic<std::int64_t> n_scored_ = 0;
};

}  // namespace recfuse
