#include "ops/candidates.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <span>
#include <utility>

#include "isa/dispatch.hpp"
#include "recfuse/canonical.hpp"

namespace recfuse {
Candidates::Candidates(const Queries& queries, const Filters& filters, std::int64_t max_queries, std::int64_t room,
                       SharedThresholds* shared)
    : queries_(queries),
      filters_(filters),
      shared_(shared),
      room_(room),
      values_(static_cast<std::size_t>(max_queries * (room + kernels::kSpareCandidates))),
      bounds_(values_.size()),
      ids_(values_.size()),
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
  if (shared_ != nullptr) shared_->raise(row(q), threshold(q));
  return threshold(q) > before;
}

/// Marks the excluded items of a query, looks candidates up, and wipes the marks: a search in the list for every
/// candidate takes several times as long.
class Candidates::Exclusions {
 public:
  Exclusions(const Filters& filters, std::int64_t q, std::int64_t n_items, std::int64_t n_candidates)
      : filters_(filters), query_(q) {
    const CsrView& exclude = filters.exclude;
    if (!exclude.given() || exclude.row_size(q) > kMostPerCandidate * n_candidates) return;
    ids_ = std::span(exclude.row_indices(q), static_cast<std::size_t>(exclude.row_size(q)));
    marks_ = &marks_of_thread();
    marks_->resize(static_cast<std::size_t>(n_items + 63) / 64);
    for (const std::int32_t id : ids_) word(id) |= bit(id);
  }
  ~Exclusions() {
    for (const std::int32_t id : ids_) word(id) &= ~bit(id);
  }
  Exclusions(const Exclusions&) = delete;
  Exclusions& operator=(const Exclusions&) = delete;

  bool operator()(std::int32_t id) const {
    return marks_ != nullptr ? (word(id) & bit(id)) != 0 : filters_.excludes(query_, id);
  }

 private:
  static constexpr std::int64_t kMostPerCandidate = 8;  // beyond, searching in the list is faster

  /// All zero between two uses, whatever its size.
  static std::vector<std::uint64_t>& marks_of_thread() {
    thread_local std::vector<std::uint64_t> marks;
    return marks;
  }
  std::uint64_t& word(std::int32_t id) const { return (*marks_)[static_cast<std::size_t>(id) / 64]; }
  static std::uint64_t bit(std::int32_t id) { return std::uint64_t{1} << (static_cast<std::uint32_t>(id) % 64); }

  const Filters& filters_;
  std::int64_t query_;
  std::span<const std::int32_t> ids_;
  std::vector<std::uint64_t>* marks_ = nullptr;
};

void Candidates::drop_refused(std::int64_t q) {
  const std::int64_t n_new = counts_[row(q)] - admitted_[row(q)];
  if (filters_.given() && n_new > 0) {
    const Exclusions excluded(filters_, q, queries_.items().n_items(), n_new);
    const std::size_t begin = first_entry(q);
    std::size_t kept = begin + static_cast<std::size_t>(admitted_[row(q)]);
    for (std::size_t i = kept; i < begin + static_cast<std::size_t>(counts_[row(q)]); ++i) {
      if (excluded(ids_[i]) || !filters_.allows(q, ids_[i])) continue;
      values_[kept] = values_[i];
      bounds_[kept] = bounds_[i];
      ids_[kept++] = ids_[i];
    }
    counts_[row(q)] = static_cast<std::int32_t>(kept - begin);
  }
  admitted_[row(q)] = counts_[row(q)];
}

/// The k best of the screen say what the k-th score reaches at least: the least of their lower bounds.
void Candidates::drop_hopeless(std::int64_t q, bool score_best) {
  const std::int64_t k = queries_.args().k, count = counts_[row(q)];
  if (count < k) return;
  const auto& kernels = kernel_table();
  const std::size_t begin = first_entry(q), end = begin + static_cast<std::size_t>(count);
  // Not a member: threads may finish different queries of one object at the same time.
  thread_local std::vector<std::int32_t> keys;
  keys.resize(static_cast<std::size_t>(count));
  const float kth = kernels.kth_largest(&values_[begin], count, k, keys.data());
  if (score_best) {
    std::int64_t scored = 0;
    for (std::size_t i = begin; i < end && scored < k; ++i) {
      if (values_[i] >= kth) scored += score(q, i);
    }
    n_scored_.fetch_add(scored, std::memory_order_relaxed);
    return drop_hopeless(q, false);
  }
  float least = std::numeric_limits<float>::infinity();
  for (std::size_t i = begin; i < end; ++i) {
    if (values_[i] >= kth) least = std::min(least, values_[i] - bounds_[i]);
  }
  raise_threshold(q, least);
  counts_[row(q)] = admitted_[row(q)] = static_cast<std::int32_t>(
      kernels.keep_reaching(threshold(q), count, &values_[begin], &bounds_[begin], &ids_[begin]));
}

/// Returns how many items that took: 0 where it was done before.
int Candidates::score(std::int64_t q, std::size_t entry) {
  if (bounds_[entry] == 0) return 0;
  values_[entry] = queries_.score(kernel_table(), q, ids_[entry]);
  bounds_[entry] = 0;
  return 1;
}

void Candidates::keep_best_exactly(std::int64_t q) {
  ExactTopk best(queries_.args().k);
  score_most_promising(q, best);
  std::size_t entry = first_entry(q);
  for (const std::uint64_t key : best.sorted()) {
    values_[entry] = key_score(key);
    bounds_[entry] = 0;
    ids_[entry++] = key_id(key);
  }
  const auto count = static_cast<std::int32_t>(entry - first_entry(q));
  counts_[row(q)] = admitted_[row(q)] = count;
  if (count == queries_.args().k) raise_threshold(q, values_[entry - 1]);
}

/// From the highest upper bound down, until no upper bound reaches the k-th best score.
void Candidates::score_most_promising(std::int64_t q, ExactTopk& best) {
  constexpr std::size_t kBetweenLooks = 16;
  const std::size_t begin = first_entry(q), count = static_cast<std::size_t>(counts_[row(q)]);
  thread_local std::vector<std::pair<float, std::size_t>> order;
  order.clear();
  for (std::size_t i = begin; i < begin + count; ++i) order.emplace_back(values_[i] + bounds_[i], i);
  std::sort(order.begin(), order.end(), std::greater<>());
  std::int64_t scored = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto [upper, entry] = order[i];
    if (i % kBetweenLooks == 0) best.tighten();
    if (upper < best.worst_score()) break;
    scored += score(q, entry);
    best.push(values_[entry], ids_[entry]);
  }
  n_scored_.fetch_add(scored, std::memory_order_relaxed);
}

void Candidates::rescore(std::int64_t q, ExactTopk& best) {
  drop_refused(q);
  drop_hopeless(q, false);
  score_most_promising(q, best);
}

}  // namespace recfuse
