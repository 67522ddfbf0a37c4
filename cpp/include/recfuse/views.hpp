// Views of memory that the caller owns: trivially copyable, no ownership, 64-bit offsets.
#pragma once

#include <cstdint>

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

/// Results of a top-k: row i belongs to query i, best first, short rows padded with -1 and -inf.
struct TopkOut {
  MatrixView<std::int32_t> ids;
  MatrixView<float> scores;
};

}  // namespace recfuse
