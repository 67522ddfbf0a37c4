// What the entries of a row say, and how much they weigh.
#pragma once

#include <cstdint>

#include "ops/als_side.hpp"

namespace recfuse {

/// What a row's system is made from.
struct RowEntries {
  const std::int32_t* ids = nullptr;
  const float* values = nullptr;
  std::int64_t n = 0;
};

inline RowEntries entries_of(const AlsSide& side, std::int64_t row) {
  const CsrView& csr = side.interactions;
  return {csr.row_indices(row), csr.row_values(row), csr.row_size(row)};
}

/// A row's system is the sum of weights[j] y y', besides what all rows share; its right-hand side, of targets[j] y.
struct EntryTerms {
  AlignedVector<float> weights, targets;

  /// Of n entries from the first on.
  void set(const AlsParams& params, double mean, const AlsSide& others, const RowEntries& entries, std::int64_t first,
           std::int64_t n);
};

}  // namespace recfuse
