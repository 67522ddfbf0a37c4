// What the screen keeps of every query: items that can still be among the k best.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/exact_topk.hpp"
#include "ops/query_block.hpp"

namespace recfuse {

/// Candidates of the queries [first, last), with a threshold each: the k-th largest lower bound of a score.
/// No item whose upper bound is below the threshold can be among the k best.
class Candidates {
 public:
  static std::int64_t bytes_per_query(std::int64_t k, std::int64_t n_items);

  Candidates(const Queries& queries, const Filters& filters, std::int64_t max_queries);

  void start(std::int64_t first, std::int64_t last);

  /// The smallest score that is known to be beaten by k others; -inf before there are k.
  float threshold(std::int64_t q) const { return thresholds_[row(q)]; }
  void raise_threshold(std::int64_t q, float at_least);

  /// Adds an item whose score is within `bound` of `value`; true if that raised the threshold.
  bool push(std::int64_t q, double value, double bound, std::int32_t id);

  /// Scores canonically what may be among the k best.
  void rescore(std::int64_t q, ExactTopk& best);

 private:
  struct Entry {
    float lower, upper;  // the score is in between
    std::int32_t id;
    bool exact;  // then it is both
  };

  std::size_t row(std::int64_t q) const { return static_cast<std::size_t>(q - first_); }
  Entry* entries(std::int64_t q) { return &entries_[row(q) * static_cast<std::size_t>(capacity_)]; }
  void drop_refused(std::int64_t q);
  void drop_hopeless(std::int64_t q);
  void keep_best_exactly(std::int64_t q);
  void score_most_promising(std::int64_t q, ExactTopk& best);

  const Queries& queries_;
  const Filters& filters_;
  std::int64_t capacity_;
  std::int64_t first_ = 0;
  std::vector<Entry> entries_;  // (queries, capacity)
  std::vector<std::int64_t> counts_;
  std::vector<std::int64_t> admitted_;  // the first so many passed the filters already
  std::vector<float> thresholds_;
};

}  // namespace recfuse
