// What the screen keeps of every query: items that can still be among the k best.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "aligned.hpp"
#include "kernels/table.hpp"
#include "ops/exact_topk.hpp"
#include "ops/pair_screen.hpp"
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

/// A candidate that is to be scored.
struct Pending {
  std::int32_t row;
  std::int32_t entry;  // of the list
};

/// Candidates of the queries [first, last), with a threshold each that k scores are known to reach, or that a sample
/// promises. No item whose upper bound is below the threshold can be among the k best, if the promise is kept.
class Candidates {
 public:
  /// What a worker needs for a batch of items.
  class Settling;

  /// `room`: for so many candidates per query, more than k. `shared`: with other workers, or null.
  Candidates(const Queries& queries, const Filters& filters, std::int64_t max_queries, std::int64_t room,
             SharedThresholds* shared);

  static std::int64_t bytes_per_query(std::int64_t room) { return 12 * (room + kernels::kSpareCandidates); }

  void start(std::int64_t first, std::int64_t last);
  std::int64_t first() const { return first_; }
  std::int64_t last() const { return last_; }

  /// -inf before there are k, or a guess.
  float threshold(std::int64_t q) const { return std::max(thresholds_[row(q)], guesses_[row(q)]); }
  /// That k scores are known to reach this.
  void raise_threshold(std::int64_t q, float at_least) {
    thresholds_[row(q)] = std::max(thresholds_[row(q)], at_least);
  }
  /// Of all queries, before the scan. Where each is known to reach something, next to nothing passes that is not scored
  /// in the end: then it is scored without more ado.
  void know(std::span<const float> thresholds);
  /// Takes over what other workers have found.
  void catch_up(std::int64_t q) {
    if (shared_ != nullptr) raise_threshold(q, shared_->get(row(q)));
  }

  /// Adds an item whose score is within `bound` > 0 of `value`; true if that raised the threshold.
  bool push(std::int64_t q, double value, double bound, std::int32_t id) {
    const std::size_t at = first_entry(q) + static_cast<std::size_t>(counts_[row(q)]++);
    values_[at] = static_cast<float>(value);
    // A little more than the bound, for the roundings of value, value - bound and value + bound.
    bounds_[at] = static_cast<float>(bound * (1 + 0x1p-20) + std::abs(value) * 0x1p-22);
    ids_[at] = id;
    return make_room(q);
  }

  /// The lists of these rows of the block, for kernels that push a panel of items; then make_room().
  kernels::CandidateLists lists(const std::int32_t* rows) {
    return {values_.data(), bounds_.data(), ids_.data(), counts_.data(), rows, room_ + kernels::kSpareCandidates};
  }
  /// True if that raised the threshold.
  bool make_room(std::int64_t q) { return counts_[row(q)] >= room_ && compact(q); }

  /// Whether looking at all queries together pays: their lists are about to run full.
  bool crowded() const;
  /// As make_room() for all queries. What must be scored is scored item by item, for the queries that share it.
  void compact_all();
  /// Raises thresholds to what k scores will surely reach, if what was pushed so far is from a fair sample: this share
  /// of all items. settled() tells whether they did.
  void guess(double share);
  /// Scores the k best of the screen, of every query: where its threshold ends up.
  void score_best();
  /// Leaves, of every query, what may be among the k best, scored.
  void settle();
  /// The same in steps, for workers that share batches of items: first, what is to be scored is found,
  void find_open();
  /// then, where this is so, it is looked at in int16 batch by batch, every batch by one worker,
  bool narrows() const { return pair_screen_ != nullptr; }
  std::size_t n_batches() const { return batch_ends_.size() - 1; }
  void settle_batch(std::size_t batch, Settling& settling);
  /// and last, what is left is scored.
  void end_settling();
  /// Whether a query, after settle(), has what it needs: not where its guess was too high, nor where it had it before
  /// the others were retried.
  bool settled(std::int64_t q) const {
    return guesses_[row(q)] <= thresholds_[row(q)] && thresholds_[row(q)] < std::numeric_limits<float>::infinity();
  }
  /// After settle(): the queries whose guess was too high start again without one, the others no longer want anything.
  /// Returns how many start again.
  std::int64_t retry();
  /// Those of a settled query.
  void take(std::int64_t q, ExactTopk& best) const;

  /// How many items were scored canonically, all queries together.
  std::int64_t n_scored() const { return n_scored_; }

 private:
  class Exclusions;

  std::size_t row(std::int64_t q) const { return static_cast<std::size_t>(q - first_); }
  std::size_t first_entry(std::int64_t q) const {
    return row(q) * static_cast<std::size_t>(room_ + kernels::kSpareCandidates);
  }
  bool compact(std::int64_t q);
  void drop_refused(std::int64_t q);
  void drop_hopeless(std::int64_t q);
  void await_score(std::int64_t q, float least);
  void score_pending();
  void sort_pending(std::int64_t width);
  static std::int64_t batch_width(const FusedItems& items);
  void narrow(std::span<const Pending> batch, Settling& settling);
  void score(std::span<const Pending> batch);
  void score_list(std::int64_t q);
  void keep_best_exactly(std::int64_t q);
  std::size_t entry(const Pending& p) const { return first_entry(first_ + p.row) + static_cast<std::size_t>(p.entry); }
  std::int32_t id(const Pending& p) const { return ids_[entry(p)]; }
  void set_score(std::size_t entry, float score) {
    values_[entry] = score;
    bounds_[entry] = 0;
  }

  const Queries& queries_;
  const Filters& filters_;
  SharedThresholds* shared_;
  const kernels::KernelTable& kernels_;
  std::int64_t room_;
  std::int64_t first_ = 0, last_ = 0;
  // (queries, room): the score is within bound of value; a bound of 0 says that value is the score.
  Room<float> values_, bounds_;
  Room<std::int32_t> ids_;
  std::vector<std::int32_t> counts_;
  std::vector<std::int32_t> admitted_;  // the first so many passed the filters already
  std::vector<float> thresholds_;       // proven
  std::vector<float> guesses_;
  bool guessed_ = false, known_ = false;
  std::vector<std::int32_t> keys_;
  std::vector<Pending> pending_, by_item_;
  std::vector<std::size_t> batch_ends_;      // in by_item_
  std::unique_ptr<PairScreen> pair_screen_;  // while candidates are settled, if it pays
  std::atomic<std::int64_t> n_scored_ = 0;
};

class Candidates::Settling {
 public:
  explicit Settling(const FusedItems& items) : items_(items) {}

  /// Names a batch of items, for what follows.
  void choose(std::size_t batch);

 private:
  friend class Candidates;

  PairItems items_;
  std::vector<Pending> uncertain_, to_score_;
  std::vector<Queries::Pair> pairs_;
  std::vector<double> bounds_;
  std::vector<PairScreen::Interval> intervals_;
};

}  // namespace recfuse
