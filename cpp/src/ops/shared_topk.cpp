#include "ops/shared_topk.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "recfuse/canonical.hpp"

namespace recfuse {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr std::size_t kMostGroups = 64;
constexpr std::size_t kManyFinds = 4096;  // of a group

}  // namespace

float screening_threshold(float worst) {
  if (std::isinf(worst)) return worst > 0 ? kLargest : -kLargest;  // from there on scores are rounded to infinity
  const double lowered = worst - std::abs(static_cast<double>(worst)) * 0x1p-19 - 0x1p-126;
  return static_cast<float>(std::max<double>(lowered, -kLargest));
}

SharedTopk::SharedTopk(std::int64_t n_rows, std::int64_t k)
    : k_(static_cast<std::size_t>(k)),
      room_(std::min(k_ + std::max<std::size_t>(32, k_ / 2), static_cast<std::size_t>(n_rows))),
      keys_(static_cast<std::size_t>(n_rows) * room_),
      worst_(static_cast<std::size_t>(n_rows)),
      counts_(static_cast<std::size_t>(n_rows)),
      thresholds_(static_cast<std::size_t>(n_rows), -kLargest) {
  while ((static_cast<std::size_t>(n_rows) >> shift_) >= kMostGroups) ++shift_;
  locks_ = std::vector<std::mutex>((static_cast<std::size_t>(n_rows) >> shift_) + 1);
}

SharedTopk::Finds::Finds(const SharedTopk& shared)
    : shift_(shared.shift_), groups_(shared.locks_.size()), thresholds_(shared.counts_.size(), -kLargest) {
  // What a row adds at most: itself to every other row, and its own k.
  for (auto& group : groups_) group.reserve(kManyFinds + (std::size_t{1} << shift_) + shared.k_);
}

void SharedTopk::share(Finds& finds) {
  for (std::size_t group = 0; group < locks_.size(); ++group) share_group(finds, group);
}

void SharedTopk::share_many(Finds& finds) {
  for (std::size_t group = 0; group < locks_.size(); ++group) {
    if (finds.groups_[group].size() > kManyFinds) share_group(finds, group);
  }
}

void SharedTopk::share_group(Finds& finds, std::size_t group) {
  const std::lock_guard lock(locks_[group]);
  for (const Neighbour& find : finds.groups_[group]) push(find);
  finds.groups_[group].clear();
  const std::size_t first = group << shift_, last = std::min((group + 1) << shift_, counts_.size());
  for (std::size_t row = first; row < last; ++row) finds.thresholds_[row] = thresholds_[row];
}

void SharedTopk::push(const Neighbour& find) {
  const std::size_t row = find.row;
  if (find.key <= worst_[row]) return;  // NaN has key 0
  if (counts_[row] == room_) shrink(row);
  if (find.key <= worst_[row]) return;
  keys_[row * room_ + counts_[row]++] = find.key;
  // The first k tell the first threshold; later ones come with every shrinking.
  if (counts_[row] == k_) shrink(row);
}

void SharedTopk::shrink(std::size_t row) {
  std::uint64_t* const begin = keys_.data() + row * room_;
  std::uint64_t* const kth = begin + k_ - 1;
  std::nth_element(begin, kth, begin + counts_[row], std::greater<>());
  worst_[row] = *kth;
  counts_[row] = static_cast<std::uint32_t>(k_);
  thresholds_[row] = screening_threshold(key_score(worst_[row]));
}

void SharedTopk::write(std::int64_t number, std::int64_t row, const TopkOut& out) {
  const auto at = static_cast<std::size_t>(number);
  std::uint64_t* const begin = keys_.data() + at * room_;
  std::sort(begin, begin + counts_[at], std::greater<>());
  const auto found = std::min<std::int64_t>(counts_[at], static_cast<std::int64_t>(k_));
  for (std::int64_t i = 0; i < out.ids.cols; ++i) {
    const bool filled = i < found;
    out.ids.row(row)[i] = filled ? key_id(begin[i]) : -1;
    out.scores.row(row)[i] = filled ? key_score(begin[i]) : -std::numeric_limits<float>::infinity();
  }
}

}  // namespace recfuse
