// What the entries of a row say, and how much they weigh.
#pragma once

#include <cstdint>
#include <vector>

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
  AlignedVector<float> weights, targets;  // a weight is below 0 where the confidence is below 1

  /// Of n entries from the first on.
  void set(const AlsParams& params, double mean, const AlsSide& others, const RowEntries& entries, std::int64_t first,
           std::int64_t n);

  /// Replaces the weights of n entries by the roots of their sizes. Entries whose terms are subtracted come last then,
  /// with `ids` in the same order; returns how many are before them.
  std::int64_t take_roots(const AlsParams& params, const std::int32_t*& ids, std::int64_t n);

 private:
  std::int64_t move_negative_last(const std::int32_t*& ids, std::int64_t n);

  std::vector<std::int32_t> ids_;
  std::vector<std::int64_t> places_;
  AlignedVector<float> moved_;
};

/// A system of which less is left, by its diagonal, than this share of what all rows have in common, before entries are
/// subtracted, is solved in float64: float32 has lost too much of it.
inline constexpr float kSmallestRemainder = 1.0F / 64;

/// Whether an entry of the row counts less than an absent one.
bool has_negative_weight(const AlsParams& params, const RowEntries& entries);

}  // namespace recfuse
