// The loss of the entries of ranges of rows, of several devices or one after the other on one, in the order of all.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <span>
#include <vector>

#include "als_half_step.cuh"
#include "als_loss.cuh"
#include "als_side.cuh"

namespace recfuse::cuda {

/// Runs of terms of which no range of rows has all, and the sums of all others.
class SharedRuns {
 public:
  static constexpr std::int64_t kRun = SumRuns<RowPenalty>::kRun;

  /// `ends`: of the terms of ranges, one range's after the other's.
  explicit SharedRuns(std::span<const std::int64_t> ends)
      : n_(ends.back()), sums_(static_cast<std::size_t>(SumRuns<RowPenalty>::runs(n_))) {
    for (const std::int64_t end : ends) {
      if (end % kRun == 0 || end == n_) continue;
      const std::int64_t run = end / kRun;
      terms_[run].resize(static_cast<std::size_t>(std::min(n_, (run + 1) * kRun) - run * kRun));
    }
  }
  bool is_shared(std::int64_t run) const { return terms_.contains(run); }
  std::int64_t end_of(std::int64_t run) const { return std::min(n_, (run + 1) * kRun); }
  std::span<double> sums(std::int64_t first, std::int64_t last) {
    return std::span(sums_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
  }
  /// Of one run.
  std::span<double> terms(std::int64_t first, std::int64_t last) {
    return std::span(terms_.at(first / kRun))
        .subspan(static_cast<std::size_t>(first % kRun), static_cast<std::size_t>(last - first));
  }
  double total() {
    for (const auto& [run, terms] : terms_) {
      sums_[static_cast<std::size_t>(run)] = SumRuns<RowPenalty>::sum_of(terms);
    }
    return std::accumulate(sums_.begin(), sums_.end(), 0.0);
  }

 private:
  std::int64_t n_;
  std::vector<double> sums_;
  std::map<std::int64_t, std::vector<double>> terms_;  // by run; elements are written by several threads
};

/// Of the entries [first, last) of all, which are those of `users`: sums of whole runs, and the terms of those that
/// others share.
template <class Device>
void sum_entries(Device& device, const AlsHalfStep<Device>& half, const AlsSideOnDevice<Device>& users,
                 const AlsSideOnDevice<Device>& items, std::int64_t first, std::int64_t last, SharedRuns& runs) {
  using Terms = From<EntryLoss>;
  using Sums = typename Device::template Array<double>;
  const std::int64_t begin = first;
  const EntryLoss of_entry{half.rows_of(users, items), users.rows, users.table.data()};
  while (first < last) {
    const std::int64_t run = first / SharedRuns::kRun;
    if (runs.is_shared(run)) {
      const std::int64_t end = std::min(last, runs.end_of(run));
      const auto to = runs.terms(first, end);
      Sums terms(device, to.size());
      device.launch(WriteTerms<Terms>{{of_entry, first - begin}, end - first, terms.data()},
                    (end - first + WriteTerms<Terms>::kThreads - 1) / WriteTerms<Terms>::kThreads, 1, 0);
      terms.read(to);
      first = end;
      continue;
    }
    std::int64_t end_run = run;
    while (end_run * SharedRuns::kRun < last && !runs.is_shared(end_run)) ++end_run;
    const std::int64_t end = std::min(last, runs.end_of(end_run - 1));
    Sums sums(device, static_cast<std::size_t>(end_run - run));
    device.launch(SumRuns<Terms>{{of_entry, first - begin}, end - first, sums.data()}, end_run - run, 1,
                  SumRuns<Terms>::kThreads * sizeof(double));
    sums.read(runs.sums(run, end_run));
    first = end;
  }
}

}  // namespace recfuse::cuda
