// Views of memory that the caller owns: trivially copyable, no ownership, 64-bit offsets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace recfuse {

/// Rows of `cols` contiguous elements; consecutive rows start `stride` elements apart.
template <class T>
struct MatrixView {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;

  MatrixView() = default;
  MatrixView(T* d, std::int64_t r, std::int64_t c) : data(d), rows(r), cols(c), stride(c) {}
  MatrixView(T* d, std::int64_t r, std::int64_t c, std::int64_t s) : data(d), rows(r), cols(c), stride(s) {}

  T* row(std::int64_t i) const { return data + i * stride; }
};

/// A sparse matrix by rows. Indices ascend within a row, without duplicates.
/// `values` may be null where only the pattern counts; `indptr` may start above zero: callers pass
/// a row slice of a larger matrix.
struct CsrView {
  const std::int64_t* indptr = nullptr;  // rows + 1
  const std::int32_t* indices = nullptr;
  const float* values = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;

  bool given() const { return indptr != nullptr; }
  std::int64_t nnz() const { return indptr[rows] - indptr[0]; }
  std::int64_t row_size(std::int64_t i) const { return indptr[i + 1] - indptr[i]; }
  const std::int32_t* row_indices(std::int64_t i) const { return indices + indptr[i]; }
  const float* row_values(std::int64_t i) const { return values + indptr[i]; }
};

/// Whether columns lie in [0, n_columns); without branches, which would cost more than the comparisons.
template <class Index>
bool lies_within(std::span<const Index> columns, std::int64_t n_columns) {
  int outside = 0;
  for (const Index column : columns) outside |= column < 0 || column >= n_columns ? 1 : 0;
  return outside == 0;
}

/// The same, and ascend without repeats.
template <class Index>
bool ascends_within(std::span<const Index> columns, std::int64_t n_columns) {
  if (columns.empty()) return true;
  int descends = 0;
  for (std::size_t j = 1; j < columns.size(); ++j) descends |= columns[j - 1] >= columns[j] ? 1 : 0;
  return descends == 0 && columns.front() >= 0 && columns.back() < n_columns;
}

/// Whether these parts make a CsrView: row starts from 0 that never decrease and end within the indices, and in every
/// row columns that ascend within [0, cols). Reads nothing outside of the spans, whatever they hold.
/// For int32 and int64.
template <class Index>
bool is_canonical_csr(std::span<const Index> indptr, std::span<const Index> indices, std::int64_t rows,
                      std::int64_t cols, int num_threads);

/// Results of a top-k: row i belongs to query i, best first, short rows padded with -1 and -inf.
struct TopkOut {
  MatrixView<std::int32_t> ids;
  MatrixView<float> scores;
};

}  // namespace recfuse
