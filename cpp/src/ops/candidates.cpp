#include "ops/candidates.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "isa/dispatch.hpp"
#include "recfuse/canonical.hpp"

namespace recfuse {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float round_down(double x) {
  const float f = static_cast<float>(x);
  return f <= x ? f : std::nextafter(f, -kInfinity);
}

/// More than k, so that compaction always frees some.
std::int64_t capacity_for(std::int64_t k, std::int64_t n_items) { return std::min(k, n_items) * 2 + 64; }

float round_up(double x) { return -round_down(-x); }

}  // namespace

std::int64_t Candidates::bytes_per_query(std::int64_t k, std::int64_t n_items) {
  return capacity_for(k, n_items) * static_cast<std::int64_t>(sizeof(Entry));
}

Candidates::Candidates(const Queries& queries, const Filters& filters, std::int64_t max_queries)
    : queries_(queries),
      filters_(filters),
      capacity_(capacity_for(queries.args().k, queries.items().n_items())),
      entries_(static_cast<std::size_t>(max_queries * capacity_)),
      counts_(static_cast<std::size_t>(max_queries)),
      admitted_(static_cast<std::size_t>(max_queries)),
      thresholds_(static_cast<std::size_t>(max_queries)) {}

void Candidates::start(std::int64_t first, std::int64_t last) {
  first_ = first;
  const auto n = static_cast<std::ptrdiff_t>(last - first);
  std::fill_n(counts_.begin(), n, 0);
  std::fill_n(admitted_.begin(), n, 0);
  std::fill_n(thresholds_.begin(), n, -kInfinity);
}

void Candidates::raise_threshold(std::int64_t q, float at_least) {
  thresholds_[row(q)] = std::max(thresholds_[row(q)], at_least);
}

bool Candidates::push(std::int64_t q, double value, double bound, std::int32_t id) {
  std::int64_t& count = counts_[row(q)];
  entries(q)[count++] = {round_down(value - bound), round_up(value + bound), id, false};
  if (count < capacity_) return false;
  const float before = threshold(q);
  drop_refused(q);
  drop_hopeless(q);
  // Scores too close for the screen to tell apart, equal ones above all: only exact scores free room.
  if (count > capacity_ - capacity_ / 8) keep_best_exactly(q);
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

void Candidates::drop_hopeless(std::int64_t q) {
  const std::int64_t k = queries_.args().k, count = counts_[row(q)];
  if (count < k) return;
  Entry* const begin = entries(q);
  std::nth_element(begin, begin + k - 1, begin + count,
                   [](const Entry& a, const Entry& b) { return a.lower > b.lower; });
  raise_threshold(q, begin[k - 1].lower);
  const float at_least = threshold(q);
  Entry* const end = std::remove_if(begin, begin + count, [&](const Entry& e) { return e.upper < at_least; });
  counts_[row(q)] = admitted_[row(q)] = end - begin;
}

void Candidates::keep_best_exactly(std::int64_t q) {
  ExactTopk best(queries_.args().k);
  score_most_promising(q, best);
  Entry* const begin = entries(q);
  std::int64_t count = 0;
  for (const std::uint64_t key : best.sorted()) begin[count++] = {key_score(key), key_score(key), key_id(key), true};
  counts_[row(q)] = admitted_[row(q)] = count;
  if (count == queries_.args().k) raise_threshold(q, begin[count - 1].lower);
}

/// From the highest upper bound down, until no upper bound reaches the k-th best score.
void Candidates::score_most_promising(std::int64_t q, ExactTopk& best) {
  constexpr std::int64_t kBetweenLooks = 16;
  Entry* const begin = entries(q);
  const std::int64_t count = counts_[row(q)];
  std::sort(begin, begin + count, [](const Entry& a, const Entry& b) { return a.upper > b.upper; });
  const auto& kernels = kernel_table();
  for (std::int64_t i = 0; i < count; ++i) {
    if (i % kBetweenLooks == 0) best.tighten();
    if (begin[i].upper < best.worst_score()) break;
    best.push(begin[i].exact ? begin[i].lower : queries_.score(kernels, q, begin[i].id), begin[i].id);
  }
}

void Candidates::rescore(std::int64_t q, ExactTopk& best) {
  drop_refused(q);
  drop_hopeless(q);
  score_most_promising(q, best);
}

}  // namespace recfuse
