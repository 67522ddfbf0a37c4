// The objective on a device: sums in float64 over runs that are added in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

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
  /// What a block makes of the terms of a run.
  static double sum_of(std::span<const double> terms) {
    double total = 0;
    for (std::size_t thread = 0; thread < kThreads; ++thread) {
      double sum = 0;
      for (std::size_t i = thread; i < terms.size(); i += kThreads) sum += terms[i];
      total += sum;
    }
    return total;
  }

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

/// The terms themselves, of a run that devices share.
template <class Term>
struct WriteTerms {
  static constexpr int kThreads = 128;
  Term term;
  std::int64_t n;
  double* terms;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread) {
      const std::int64_t i = std::int64_t{block.x()} * kThreads + thread;
      if (i < n) terms[i] = term(i);
    });
  }
};

/// Term i + by.
template <class Term>
struct From {
  Term term;
  std::int64_t by;
  RECFUSE_DEVICE double operator()(std::int64_t i) const { return term(i + by); }
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
