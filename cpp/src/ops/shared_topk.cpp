#include "ops/shared_topk.hpp"

#include <algorithm>
#include <limits>

#include "recfuse/canonical.hpp"

namespace recfuse {
namespace {

constexpr std::size_t kMostGroups = 64;
constexpr std::size_t kManyFinds = 4096;  // of a group
constexpr std::size_t kPushAhead = 16;    // the rows of finds lie anywhere

}  // namespace

SharedTopk::SharedTopk(std::int64_t n_rows, std::int64_t k, const kernels::KernelTable& kernels)
    : n_rows_(static_cast<std::size_t>(n_rows)),
      k_(static_cast<std::size_t>(k)),
      rows_(n_rows_, k_, kernels),
      thresholds_(n_rows_, no_threshold()) {
  while ((n_rows_ >> shift_) >= kMostGroups) ++shift_;
  locks_ = std::vector<std::mutex>((n_rows_ >> shift_) + 1);
}

SharedTopk::Finds::Finds(const SharedTopk& shared)
    : shift_(shared.shift_), groups_(shared.locks_.size()), thresholds_(shared.n_rows_, no_threshold()) {
  for (auto& group : groups_) {
    group.finds = Room<Neighbour>(kManyFinds + (std::size_t{1} << shift_) + shared.rows_.room());
  }
}

void SharedTopk::share(Finds& finds) {
  for (std::size_t group = 0; group < locks_.size(); ++group) share_group(finds, group);
}

void SharedTopk::share_many(Finds& finds) {
  for (std::size_t group = 0; group < locks_.size(); ++group) {
    if (finds.groups_[group].n > kManyFinds) share_group(finds, group);
  }
}

void SharedTopk::share_group(Finds& finds, std::size_t group) {
  const std::lock_guard lock(locks_[group]);
  auto& own = finds.groups_[group];
  for (std::size_t i = 0; i < own.n; ++i) {
    if (i + 2 * kPushAhead < own.n) rows_.prefetch_state(own.finds[i + 2 * kPushAhead].row);
    if (i + kPushAhead < own.n) rows_.prefetch_end(own.finds[i + kPushAhead].row);
    const std::size_t row = own.finds[i].row;
    if (rows_.push(row, own.finds[i].key)) thresholds_[row] = rows_.threshold(row);
  }
  own.n = 0;
  const std::size_t first = group << shift_, last = std::min((group + 1) << shift_, n_rows_);
  for (std::size_t row = first; row < last; ++row) finds.thresholds_[row] = thresholds_[row];
}

void SharedTopk::write(std::int64_t number, std::int64_t row, std::vector<std::uint64_t>& keys, const TopkOut& out) {
  rows_.sort(static_cast<std::size_t>(number), keys);
  std::int32_t* const ids = out.ids.row(row);
  float* const scores = out.scores.row(row);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    ids[i] = key_id(keys[i]);
    scores[i] = key_score(keys[i]);
  }
  std::fill(ids + keys.size(), ids + out.ids.cols, -1);
  std::fill(scores + keys.size(), scores + out.ids.cols, -std::numeric_limits<float>::infinity());
}

}  // namespace recfuse
