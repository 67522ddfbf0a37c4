// Ranges of rows: those of several devices, and those that are on a device at a time. Host code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "recfuse/views.hpp"

namespace recfuse::cuda {

/// Some of the users, or of the items: [first, last).
struct RowRange {
  std::int64_t first = 0, last = 0;
  std::int64_t size() const { return last - first; }
};

/// Ranges of about equal work: a row takes its entries, and some more for its own system.
inline std::vector<RowRange> row_ranges(const CsrView& csr, std::int64_t unknowns, std::size_t n) {
  const std::int64_t per_row = 1 + unknowns / 4, all = csr.nnz() + csr.rows * per_row;
  std::vector<RowRange> ranges;
  std::int64_t row = 0;
  for (std::size_t i = 1; i <= n; ++i) {
    const std::int64_t first = row, share = all * static_cast<std::int64_t>(i) / static_cast<std::int64_t>(n);
    while (row < csr.rows && csr.indptr[row] - csr.indptr[0] + row * per_row < share) ++row;
    ranges.push_back({first, i == n ? csr.rows : row});
  }
  return ranges;
}

inline CsrView rows_of(const CsrView& csr, const RowRange& range) {
  return {csr.indptr + range.first, csr.indices, csr.values, range.size(), csr.cols};
}

/// Ranges of at most so many rows and entries, as few as there can be in this order; a row with more entries is alone.
inline std::vector<RowRange> cut_rows(const CsrView& csr, std::int64_t most_rows, std::int64_t most_entries) {
  std::vector<RowRange> ranges;
  for (std::int64_t row = 0; row < csr.rows;) {
    const std::int64_t first = row++;
    while (row < csr.rows && row - first < most_rows && csr.indptr[row + 1] - csr.indptr[first] <= most_entries) ++row;
    ranges.push_back({first, row});
  }
  return ranges;
}

}  // namespace recfuse::cuda
