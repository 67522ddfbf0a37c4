#include "ops/candidates.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>

#include "isa/dispatch.hpp"
#include "recfuse/canonical.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kBatchFloats = 1 << 17;  // of the items that are scored together: half of an L2
// How many of the k best a sample may hold, beyond those of its share: 5 standard deviations and a few for small
// numbers fail one query in some 100,000.
constexpr double kGuessDeviations = 5, kGuessMore = 3;

}  // namespace

/// Of the items that are scored together.
std::int64_t Candidates::batch_width(const FusedItems& items) {
  return std::max<std::int64_t>(16, kBatchFloats / items.total_dim());
}

Candidates::Candidates(const Queries& queries, const Filters& filters, std::int64_t max_queries, std::int64_t room,
                       SharedThresholds* shared)
    : queries_(queries),
      filters_(filters),
      shared_(shared),
      kernels_(kernel_table()),
      room_(room),
      values_(static_cast<std::size_t>(max_queries * (room + kernels::kSpareCandidates))),
      bounds_(static_cast<std::size_t>(max_queries * (room + kernels::kSpareCandidates))),
      ids_(static_cast<std::size_t>(max_queries * (room + kernels::kSpareCandidates))),
      counts_(static_cast<std::size_t>(max_queries)),
      admitted_(static_cast<std::size_t>(max_queries)),
      thresholds_(static_cast<std::size_t>(max_queries)),
      guesses_(static_cast<std::size_t>(max_queries)),
      keys_(static_cast<std::size_t>(room + kernels::kSpareCandidates)) {}

void Candidates::start(std::int64_t first, std::int64_t last) {
  first_ = first;
  last_ = last;
  const auto n = static_cast<std::ptrdiff_t>(last - first);
  std::fill_n(counts_.begin(), n, 0);
  std::fill_n(admitted_.begin(), n, 0);
  std::fill_n(thresholds_.begin(), n, -std::numeric_limits<float>::infinity());
  std::fill_n(guesses_.begin(), n, -std::numeric_limits<float>::infinity());
  guessed_ = known_ = false;
}

void Candidates::know(std::span<const float> thresholds) {
  known_ = !thresholds.empty();
  for (std::size_t r = 0; r < thresholds.size(); ++r) {
    const std::int64_t q = first_ + static_cast<std::int64_t>(r);
    raise_threshold(q, thresholds[r]);
    known_ = known_ && (thresholds[r] > -std::numeric_limits<float>::infinity() || !queries_.scanned(q));
  }
}

bool Candidates::crowded() const {
  const std::int64_t n = last_ - first_;
  const std::int64_t waiting = std::accumulate(counts_.begin(), counts_.begin() + n, std::int64_t{0});
  return waiting > n * (room_ - room_ / 8);
}

bool Candidates::compact(std::int64_t q) {
  const float before = threshold(q);
  drop_refused(q);
  drop_hopeless(q);
  // Too many that their bounds cannot tell apart: the scores of the k best set the threshold where it belongs.
  if (counts_[row(q)] > room_ / 2) {
    await_score(q, threshold(q));
    score_pending();
    drop_hopeless(q);
  }
  // Equal scores above all: only the total order tells them apart.
  if (counts_[row(q)] > room_ - room_ / 8) keep_best_exactly(q);
  if (shared_ != nullptr) shared_->raise(row(q), threshold(q));
  return threshold(q) > before;
}

void Candidates::compact_all() {
  for (std::int64_t q = first_; q < last_; ++q) {
    drop_refused(q);
    drop_hopeless(q);
    if (counts_[row(q)] > room_ / 2) await_score(q, threshold(q));
  }
  score_pending();
  for (std::int64_t q = first_; q < last_; ++q) {
    if (counts_[row(q)] > room_ / 2) drop_hopeless(q);
    if (counts_[row(q)] > room_ / 2) keep_best_exactly(q);
    if (shared_ != nullptr) shared_->raise(row(q), threshold(q));
  }
}

void Candidates::guess(double share) {
  const double expected = share * static_cast<double>(queries_.args().k);
  const auto place = static_cast<std::int64_t>(expected + kGuessDeviations * std::sqrt(expected) + kGuessMore);
  if (place > queries_.args().k) return;
  guessed_ = true;
  for (std::int64_t q = first_; q < last_; ++q) {
    drop_refused(q);
    const std::size_t begin = first_entry(q);
    if (counts_[row(q)] >= place) {
      const float value = kernels_.kth_lower_end(&values_[begin], nullptr, counts_[row(q)], place, keys_.data());
      guesses_[row(q)] = std::max(guesses_[row(q)], value);
    }
    drop_hopeless(q);
  }
}

std::int64_t Candidates::retry() {
  std::int64_t n_retried = 0;
  for (std::size_t r = 0; r < row(last_); ++r) {
    const bool failed = guesses_[r] > thresholds_[r];
    n_retried += failed ? 1 : 0;
    if (!failed) thresholds_[r] = std::numeric_limits<float>::infinity();
    guesses_[r] = -std::numeric_limits<float>::infinity();
    counts_[r] = admitted_[r] = 0;
  }
  guessed_ = false;
  return n_retried;
}

void Candidates::take(std::int64_t q, ExactTopk& best) const {
  const std::size_t begin = first_entry(q), end = begin + static_cast<std::size_t>(counts_[row(q)]);
  for (std::size_t i = begin; i < end; ++i) best.push(values_[i], ids_[i]);
}

/// Marks the excluded items of a query among `ids`, looks those up, and wipes the marks: a search in the list for every
/// candidate takes several times as long.
class Candidates::Exclusions {
 public:
  Exclusions(const Filters& filters, std::int64_t q, std::int64_t n_items, std::span<const std::int32_t> ids)
      : filters_(filters), query_(q) {
    const CsrView& exclude = filters.exclude;
    if (!exclude.given()) return;
    // Candidates come in the order of the scan, so most exclusions lie before or behind the latest of them.
    std::int32_t least = std::numeric_limits<std::int32_t>::max(), most = 0;
    for (const std::int32_t id : ids) {
      least = std::min(least, id);
      most = std::max(most, id);
    }
    const std::int32_t* const all = exclude.row_indices(q);
    const std::int32_t* const end = all + exclude.row_size(q);
    const std::int32_t* const begin = std::lower_bound(all, end, least);
    excluded_ = {begin, std::upper_bound(begin, end, most)};
    if (excluded_.size() > kMostPerCandidate * ids.size()) return;
    marks_ = &marks_of_thread();
    marks_->resize(static_cast<std::size_t>(n_items + 63) / 64);
    for (const std::int32_t id : excluded_) word(id) |= bit(id);
  }
  ~Exclusions() {
    if (marks_ == nullptr) return;
    for (const std::int32_t id : excluded_) word(id) &= ~bit(id);
  }
  Exclusions(const Exclusions&) = delete;
  Exclusions& operator=(const Exclusions&) = delete;

  /// Whether any of `ids` is excluded: mostly not, and then nothing moves.
  bool any(std::span<const std::int32_t> ids) const {
    if (excluded_.empty()) return false;
    if (marks_ == nullptr) return true;
    const std::uint64_t* const marks = marks_->data();
    std::uint64_t found = 0;
    for (const std::int32_t id : ids) found |= marks[static_cast<std::uint32_t>(id) / 64] & bit(id);
    return found != 0;
  }
  bool operator()(std::int32_t id) const {
    return marks_ != nullptr ? (word(id) & bit(id)) != 0 : filters_.excludes(query_, id);
  }

 private:
  static constexpr std::size_t kMostPerCandidate = 8;  // beyond, searching in the list is faster

  /// All zero between two uses, whatever its size.
  static std::vector<std::uint64_t>& marks_of_thread() {
    thread_local std::vector<std::uint64_t> marks;
    return marks;
  }
  std::uint64_t& word(std::int32_t id) const { return (*marks_)[static_cast<std::size_t>(id) / 64]; }
  static std::uint64_t bit(std::int32_t id) { return std::uint64_t{1} << (static_cast<std::uint32_t>(id) % 64); }

  const Filters& filters_;
  std::int64_t query_;
  std::span<const std::int32_t> excluded_;
  std::vector<std::uint64_t>* marks_ = nullptr;
};

void Candidates::drop_refused(std::int64_t q) {
  const std::int32_t n_known = admitted_[row(q)], n_new = counts_[row(q)] - n_known;
  admitted_[row(q)] = counts_[row(q)];
  if (!filters_.given() || n_new == 0) return;
  const std::size_t begin = first_entry(q) + static_cast<std::size_t>(n_known);
  const std::size_t end = begin + static_cast<std::size_t>(n_new);
  const std::span<const std::int32_t> fresh(&ids_[begin], static_cast<std::size_t>(n_new));
  const Exclusions excluded(filters_, q, queries_.items().n_items(), fresh);
  if (!filters_.chooses() && !excluded.any(fresh)) return;
  std::size_t kept = begin;
  for (std::size_t i = begin; i < end; ++i) {
    values_[kept] = values_[i];
    bounds_[kept] = bounds_[i];
    ids_[kept] = ids_[i];
    kept += !excluded(ids_[i]) && filters_.allows(q, ids_[i]);
  }
  counts_[row(q)] = admitted_[row(q)] = n_known + static_cast<std::int32_t>(kept - begin);
}

/// The k-th largest lower end says what the k-th score reaches at least.
void Candidates::drop_hopeless(std::int64_t q) {
  const std::int64_t k = queries_.args().k, count = counts_[row(q)];
  const std::size_t begin = first_entry(q);
  if (count >= k) {
    raise_threshold(q, kernels_.kth_lower_end(&values_[begin], &bounds_[begin], count, k, keys_.data()));
  }
  counts_[row(q)] = admitted_[row(q)] = static_cast<std::int32_t>(
      kernels_.keep_reaching(threshold(q), count, &values_[begin], &bounds_[begin], &ids_[begin]));
}

/// Has the candidates scored whose lower end reaches `least`: at the threshold, the k best of the screen.
void Candidates::await_score(std::int64_t q, float least) {
  const std::size_t begin = first_entry(q);
  for (std::int32_t i = 0; i < counts_[row(q)]; ++i) {
    const std::size_t at = begin + static_cast<std::size_t>(i);
    if (values_[at] - bounds_[at] >= least && bounds_[at] != 0)
      pending_.push_back({static_cast<std::int32_t>(row(q)), i});
  }
}

/// By batches of `width` items: their rows are read once, and stay in cache while the queries pass in order.
void Candidates::sort_pending(std::int64_t width) {
  batch_ends_.assign(static_cast<std::size_t>(queries_.items().n_items() / width) + 2, 0);
  for (const Pending& p : pending_) ++batch_ends_[static_cast<std::size_t>(id(p) / width) + 1];
  std::partial_sum(batch_ends_.begin(), batch_ends_.end(), batch_ends_.begin());
  by_item_.resize(pending_.size());
  for (const Pending& p : pending_) by_item_[batch_ends_[static_cast<std::size_t>(id(p) / width)]++] = p;
  pending_.clear();
}

void Candidates::score_pending() {
  if (pending_.empty()) return;
  sort_pending(batch_width(queries_.items()));
  score(by_item_);
}

void Candidates::keep_best_exactly(std::int64_t q) {
  await_score(q, -std::numeric_limits<float>::infinity());
  score_pending();
  ExactTopk best(queries_.args().k);
  take(q, best);
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

}  // namespace recfuse
