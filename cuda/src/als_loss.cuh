// The objective on a device: sums in float64 over runs that are added in order.
#pragma once

#include <cstdint>

#include "als_system.cuh"
#include "recfuse/canonical.hpp"

namespace recfuse::cuda {

/// sums[run] = the sum of term(i) over a run of 4,096.
template <class Term>
struct SumRuns {
  static constexpr int kThreads = 128;
  static constexpr std::int64_t kRun = 4096;
  Term term;
  std::int64_t n;
  double* sums;

  static std::int64_t runs(std::int64_t n) { return (n + kRun - 1) / kRun; }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    auto* const shares = static_cast<double*>(static_cast<void*>(block.shared()));
    const std::int64_t first = block.x() * kRun, last = first + kRun < n ? first + kRun : n;
    block.each_thread([&](int thread) {
      double sum = 0;
      for (std::int64_t i = first + thread; i < last; i += kThreads) sum += term(i);
      shares[thread] = sum;
    });
    block.each_thread([&](int thread) {
      if (thread != 0) return;
      double sum = 0;
      for (int i = 0; i < kThreads; ++i) sum += shares[i];
      sums[block.x()] = sum;
    });
  }
};

/// What stored entry i adds to the loss.
struct EntryLoss {
  RowsOnDevice users;  // and the items that they have
  std::int64_t n_users;
  const float* table;  // of the users

  RECFUSE_DEVICE double operator()(std::int64_t entry) const {
    std::int64_t user = 0, end = n_users;  // the last one that begins at or before the entry
    while (end - user > 1) {
      const std::int64_t middle = user + (end - user) / 2;
      (users.indptr[middle] <= entry ? user : end) = middle;
    }
    const int factors = users.size - (users.biases ? 1 : 0);
    const float *const x = table + user * users.size, *const y = users.others + users.other(entry) * users.size;
    const double value = users.values[entry];
    double predicted = canonical_dot(x, y, factors);
    if (!users.implicit) {
      if (users.biases) predicted += users.mean + x[factors] + y[factors];
      return (value - predicted) * (value - predicted);
    }
    return implicit_entry_loss(value, predicted, users.alpha);
  }
};

/// What the penalty of row i adds.
struct RowPenalty {
  const float* table;
  int size;
  const double* penalties;
  bool one_penalty;

  RECFUSE_DEVICE double operator()(std::int64_t row) const {
    return penalties[one_penalty ? 0 : row] * canonical_dot(table + row * size, table + row * size, size);
  }
};

}  // namespace recfuse::cuda
