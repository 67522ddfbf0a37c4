#include "ops/candidates.hpp"

#include <algorithm>
#include <limits>

#include "isa/dispatch.hpp"
#include "recfuse/canonical.hpp"

namespace recfuse {

Candidates::Candidates(const Queries& queries, const Filters& filters, std::int64_t max_queries, std::int64_t room)
    : queries_(queries),
      filters_(filters),
      room_(room),
      entries_(static_cast<std::size_t>(max_queries * room)),
      counts_(static_cast<std::size_t>(max_queries)),
      admitted_(static_cast<std::size_t>(max_queries)),
      thresholds_(static_cast<std::size_t>(max_queries)) {}

void Candidates::start(std::int64_t first, std::int64_t last) {
  first_ = first;
  const auto n = static_cast<std::ptrdiff_t>(last - first);
  std::fill_n(counts_.begin(), n, 0);
  std::fill_n(admitted_.begin(), n, 0);
  std::fill_n(thresholds_.begin(), n, -std::numeric_limits<float>::infinity());
}

void Candidates::raise_threshold(std::int64_t q, float at_least) {
  thresholds_[row(q)] = std::max(thresholds_[row(q)], at_least);
}

/// Makes room; true if that raised the threshold.
bool Candidates::compact(std::int64_t q) {
  const float before = threshold(q);
  drop_refused(q);
  drop_hopeless(q, false);
  // Too many that their bounds cannot tell apart: the scores of the k best set the threshold where it belongs.
  if (counts_[row(q)] > room_ / 2) drop_hopeless(q, true);
  // Equal scores above all: only the total order tells them apart.
  if (counts_[row(q)] > room_ - room_ / 8) keep_best_exactly(q);
  return threshold(q) > before;
}

void Candidates::drop_refused(std::int64_t q) {
  if (filters_.given()) {
    Entry* const begin = entries(q);
    Entry* const end = std::remove_if(begin + admitted_[row(q)], begin + counts_[row(q)],
                                      [&](const Entry& e) { return !filters_.admit(q, e.id); });
    counts_[row(q)] = end - begin;
  }
  admitted_[row(q)] = counts_[row(q)];
}

/// The k best of the screen say what the k-th score reaches at least: the least of their lower bounds.
void Candidates::drop_hopeless(std::int64_t q, bool score_best) {
  const std::int64_t k = queries_.args().k, count = counts_[row(q)];
  if (count < k) return;
  Entry* const begin = entries(q);
  std::nth_element(begin, begin + k - 1, begin + count,
                   [](const Entry& a, const Entry& b) { return a.value > b.value; });
  float least = std::numeric_limits<float>::infinity();
  std::int64_t scored = 0;
  for (Entry* e = begin; e != begin + k; ++e) {
    if (score_best) scored += score(q, *e);
    least = std::min(least, e->lower());
  }
  n_scored_.fetch_add(scored, std::memory_order_relaxed);
  raise_threshold(q, least);
  const float at_least = threshold(q);
  Entry* const end = std::remove_if(begin, begin + count, [&](const Entry& e) { return e.upper() < at_least; });
  counts_[row(q)] = admitted_[row(q)] = end - begin;
}

/// Returns how many items that took: 0 where it was done before.
int Candidates::score(std::int64_t q, Entry& entry) const {
  if (entry.bound == 0) return 0;
  entry.value = queries_.score(kernel_table(), q, entry.id);
  entry.bound = 0;
  return 1;
}

void Candidates::keep_best_exactly(std::int64_t q) {
  ExactTopk best(queries_.args().k);
  score_most_promising(q, best);
  Entry* const begin = entries(q);
  std::int64_t count = 0;
  for (const std::uint64_t key : best.sorted()) begin[count++] = {key_score(key), 0, key_id(key)};
  counts_[row(q)] = admitted_[row(q)] = count;
  if (count == queries_.args().k) raise_threshold(q, begin[count - 1].value);
}

/// From the highest upper bound down, until no upper bound reaches the k-th best score.
void Candidates::score_most_promising(std::int64_t q, ExactTopk& best) {
  constexpr std::int64_t kBetweenLooks = 16;
  std::int64_t scored = 0;
  Entry* const begin = entries(q);
  const std::int64_t count = counts_[row(q)];
  std::sort(begin, begin + count, [](const Entry& a, const Entry& b) { return a.upper() > b.upper(); });
  for (std::int64_t i = 0; i < count; ++i) {
    if (i % kBetweenLooks == 0) best.tighten();
    if (begin[i].upper() < best.worst_score()) break;
    scored += score(q, begin[i]);
    best.push(begin[i].value, begin[i].id);
  }
  n_scored_.fetch_add(scored, std::memory_order_relaxed);
}

void Candidates::rescore(std::int64_t q, ExactTopk& best) {
  drop_refused(q);
  drop_hopeless(q, false);
  score_most_promising(q, best);
}

}  // namespace recfuse
