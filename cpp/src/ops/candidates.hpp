// What the screen keeps of every query: items that can still be among the k best.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#include "ops/exact_topk.hpp"
#include "ops/query_block.hpp"

namespace recfuse {

/// Candidates of the queries [first, last), with a threshold each that k scores are known to reach. No item whose
/// upper bound is below the threshold can be among the k best.
class Candidates {
 public:
  /// `room`: for so many candidates per query, more than k.
  Candidates(const Queries& queries, const Filters& filters, std::int64_t max_queries, std::int64_t room);

  static std::int64_t bytes_per_query(std::int64_t room) { return room * static_cast<std::int64_t>(sizeof(Entry)); }

  void start(std::int64_t first, std::int64_t last);

  /// -inf before there are k.
  float threshold(std::int64_t q) const { return thresholds_[row(q)]; }
  void raise_threshold(std::int64_t q, float at_least);

  /// Adds an item whose score is within `bound` > 0 of `value`; true if that raised the threshold.
  bool push(std::int64_t q, double value, double bound, std::int32_t id) {
    std::int64_t& count = counts_[row(q)];
    // A little more than the bound, for the roundings of this line and of lower() and upper().
    entries(q)[count++] = {static_cast<float>(value),
                           static_cast<float>(bound * (1 + 0x1p-20) + std::abs(value) * 0x1p-22), id};
    return count == room_ && compact(q);
  }

  /// How many items were scored canonically, all queries together.
  std::int64_t n_scored() const { return n_scored_.load(std::memory_order_relaxed); }

  /// Scores canonically what may be among the k best. Threads may do so for different queries at the same time.
  void rescore(std::int64_t q, ExactTopk& best);

 private:
  struct Entry {
    float value;
    float bound;  // 0: value is the score
    std::int32_t id;

    float lower() const { return value - bound; }
    float upper() const { return value + bound; }
  };

  std::size_t row(std::int64_t q) const { return static_cast<std::size_t>(q - first_); }
  Entry* entries(std::int64_t q) { return &entries_[row(q) * static_cast<std::size_t>(room_)]; }
  bool compact(std::int64_t q);
  void drop_refused(std::int64_t q);
  void drop_hopeless(std::int64_t q, bool score_best);
  void keep_best_exactly(std::int64_t q);
  int score(std::int64_t q, Entry& entry) const;
  void score_most_promising(std::int64_t q, ExactTopk& best);

  const Queries& queries_;
  const Filters& filters_;
  std::int64_t room_;
  std::int64_t first_ = 0;
  std::vector<Entry> entries_;  // (queries, room)
  std::vector<std::int64_t> counts_;
  std::vector<std::int64_t> admitted_;  // the first so many passed the filters already
  std::vector<float> thresholds_;
  std::atomic<std::int64_t> n_scored_ = 0;
};

}  // namespace recfuse
