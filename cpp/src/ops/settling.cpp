// What becomes of candidates when all items were looked at: those that can still rank are scored.
#include <algorithm>
#include <array>
#include <limits>
#include <span>

#include "ops/candidates.hpp"

namespace recfuse {
namespace {

constexpr std::size_t kAhead = 16;     // candidates of a batch lie in as many lists
constexpr std::size_t kRowsAhead = 8;  // items that are fetched while others are scored
constexpr double kLeastNarrowing = 4;  // of an interval, for a second screen to be worth it

}  // namespace

void Candidates::score_best() {
  for (std::int64_t q = first_; q < last_; ++q) {
    catch_up(q);
    drop_refused(q);
    drop_hopeless(q);
    await_score(q, thresholds_[row(q)]);
  }
  score_pending();
  for (std::int64_t q = first_; q < last_; ++q) {
    drop_hopeless(q);
    if (shared_ != nullptr) shared_->raise(row(q), threshold(q));
  }
}

void Candidates::settle() {
  find_open();
  if (narrows()) {
    Settling settling(queries_.items());
    for (std::size_t b = 0; b < n_batches(); ++b) {
      settling.choose(b);
      settle_batch(b, settling);
    }
  }
  end_settling();
}

void Candidates::find_open() {
  if (known_) {
    for (std::int64_t q = first_; q < last_; ++q) score_list(q);
    return;
  }
  score_best();
  for (std::int64_t q = first_; q < last_; ++q) {
    if (shared_ != nullptr) {
      catch_up(q);
      drop_hopeless(q);
    }
    await_score(q, -std::numeric_limits<float>::infinity());
  }
  // An item's row is rounded for all of its pairs: only several pay for that.
  const bool many = static_cast<std::int64_t>(pending_.size()) >= queries_.items().n_items();
  if (!many || !PairScreen::fits(queries_)) return;
  sort_pending(batch_width(queries_.items()));
  std::vector<Pending>().swap(pending_);  // the screen takes less than that: the peak is no higher
  pair_screen_ = std::make_unique<PairScreen>(queries_, first_, last_);
}

void Candidates::Settling::choose(std::size_t batch) {
  const std::int64_t width = batch_width(items_.items());
  items_.choose(static_cast<std::int32_t>(static_cast<std::int64_t>(batch) * width), static_cast<std::int32_t>(width));
}

/// Scores only those that the second screen leaves a chance; says so in the intervals of the others.
void Candidates::settle_batch(std::size_t batch, Settling& settling) {
  const std::size_t begin = batch == 0 ? 0 : batch_ends_[batch - 1];
  if (batch_ends_[batch] == begin) return;
  narrow(std::span<const Pending>(by_item_.data() + begin, batch_ends_[batch] - begin), settling);
  score(settling.to_score_);
}

void Candidates::end_settling() {
  const bool narrowed = narrows();
  pair_screen_.reset();
  if (!narrowed) score_pending();
  if (!narrowed && !guessed_) return;
  for (std::int64_t q = first_; q < last_; ++q) drop_hopeless(q);  // what was not scored goes; guesses meet the truth
}

/// Leaves in to_score those that can still rank, and those for which the second screen is hardly finer.
void Candidates::narrow(std::span<const Pending> batch, Settling& settling) {
  auto& [items, uncertain, to_score, pairs, bounds, intervals] = settling;
  pairs.clear();
  bounds.clear();
  uncertain.clear();
  to_score.clear();
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Pending& p = batch[i];
    const std::size_t at = entry(p), ahead = entry(batch[std::min(i + kAhead, batch.size() - 1)]);
    __builtin_prefetch(&values_[ahead]);
    __builtin_prefetch(&bounds_[ahead]);
    __builtin_prefetch(&ids_[ahead]);
    const Queries::Pair pair{first_ + p.row, ids_[at]};
    const bool ranks = values_[at] - bounds_[at] >= threshold(pair.query);
    const double bound = ranks ? 0 : pair_screen_->bound(pair, items);
    if (ranks || bound * kLeastNarrowing > bounds_[at]) {
      to_score.push_back(p);
    } else {
      pairs.push_back(pair);
      bounds.push_back(bound);
      uncertain.push_back(p);
    }
  }
  intervals.resize(pairs.size());
  pair_screen_->measure(pairs, bounds, items, intervals);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const std::size_t at = entry(uncertain[i]);
    values_[at] = intervals[i].value;
    bounds_[at] = intervals[i].bound;
    if (values_[at] + bounds_[at] >= threshold(pairs[i].query)) to_score.push_back(uncertain[i]);
  }
}

void Candidates::score(std::span<const Pending> batch) {
  std::size_t i = 0;
  for (; i + kernels::kDots <= batch.size(); i += kernels::kDots) {
    std::array<Queries::Pair, kernels::kDots> pairs;
    std::array<float, kernels::kDots> scores;
    for (std::size_t j = 0; j < pairs.size(); ++j) pairs[j] = {first_ + batch[i + j].row, id(batch[i + j])};
    for (std::size_t ahead = i + kRowsAhead; ahead < std::min(i + kRowsAhead + kernels::kDots, batch.size()); ++ahead) {
      queries_.items().fetch(id(batch[ahead]));
    }
    queries_.score_four(kernels_, pairs.data(), scores.data());
    for (std::size_t j = 0; j < pairs.size(); ++j) set_score(entry(batch[i + j]), scores[j]);
  }
  for (; i < batch.size(); ++i) {
    set_score(entry(batch[i]), queries_.score(kernels_, first_ + batch[i].row, id(batch[i])));
  }
  n_scored_ += static_cast<std::int64_t>(batch.size());
}

/// All of a query: again, where they are scored already.
void Candidates::score_list(std::int64_t q) {
  const std::size_t first = first_entry(q), n = static_cast<std::size_t>(counts_[row(q)]);
  const std::int32_t* const ids = &ids_[first];
  for (std::size_t i = 0; i < std::min(kRowsAhead, n); ++i) queries_.items().fetch(ids[i]);
  for (std::size_t i = 0; i < n; i += kernels::kDots) {
    std::array<Queries::Pair, kernels::kDots> pairs;
    std::array<float, kernels::kDots> scores;
    for (std::size_t j = 0; j < pairs.size(); ++j) {
      pairs[j] = {q, ids[std::min(i + j, n - 1)]};
      if (i + j + kRowsAhead < n) queries_.items().fetch(ids[i + j + kRowsAhead]);
    }
    queries_.score_four(kernels_, pairs.data(), scores.data());
    for (std::size_t j = 0; j < std::min(pairs.size(), n - i); ++j) set_score(first + i + j, scores[j]);
  }
  n_scored_ += static_cast<std::int64_t>(n);
  counts_[row(q)] = admitted_[row(q)] = static_cast<std::int32_t>(
      kernels_.keep_reaching(threshold(q), counts_[row(q)], &values_[first], &bounds_[first], &ids_[first]));
}

}  // namespace recfuse
