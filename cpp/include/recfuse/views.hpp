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

/// Whether these parts make a CsrView: row starts from 0 that never decrease and end within the indices, and in every
/// row columns in [0, cols) that ascend without repeats. Reads nothing outside of the spans, whatever they hold.
template <class Index>
bool is_canonical_csr(std::span<const Index> indptr, std::span<const Index> indices, std::int64_t rows,
                      std::int64_t cols) {
  if (static_cast<std::int64_t>(indptr.size()) != rows + 1 || indptr.front() != 0) return false;
  for (std::size_t row = 0; row + 1 < indptr.size(); ++row) {
    const auto begin = static_cast<std::size_t>(indptr[row]), end = static_cast<std::size_t>(indptr[row + 1]);
    if (indptr[row + 1] < indptr[row] || end > indices.size()) return false;
    if (begin == end) continue;
    int descends = 0;  // without branches, which would cost more than the comparison
    for (std::size_t j = begin + 1; j < end; ++j) descends |= indices[j - 1] >= indices[j] ? 1 : 0;
    if (descends != 0 || indices[begin] < 0 || indices[end - 1] >= cols) return false;
  }
  return true;
}

/// Results of a top-k: row i belongs to query i, best first, short rows padded with -1 and -inf.
struct TopkOut {
  MatrixView<std::int32_t> ids;
  MatrixView<float> scores;
};

}  // namespace recfuse
