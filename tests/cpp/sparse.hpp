// Sparse matrices for tests, and lists to compare.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "recfuse/recfuse.hpp"

namespace recfuse::testing {

struct Csr {
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<float> values;
  std::int64_t cols = 0;

  std::int64_t rows() const { return static_cast<std::int64_t>(indptr.size()) - 1; }
  CsrView view() const { return {indptr.data(), indices.data(), values.data(), rows(), cols}; }
  void add(std::int64_t column, float value) {
    indices.push_back(static_cast<std::int32_t>(column));
    values.push_back(value);
  }
  void end_row() { indptr.push_back(static_cast<std::int64_t>(indices.size())); }
};

/// `has(row)` says, by chance, whether a row has the next column; its value is one of `choices`.
template <class Has>
Csr random_csr(std::int64_t rows, std::int64_t cols, const std::vector<float>& choices, std::mt19937& random,
               const Has& has) {
  Csr csr;
  csr.cols = cols;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t column = 0; column < cols; ++column) {
      if (has(row)) csr.add(column, choices[random() % choices.size()]);
    }
    csr.end_row();
  }
  return csr;
}

/// Rows of k elements, `stride` apart; what nobody writes is -7.
struct Lists {
  std::vector<std::int32_t> ids;
  std::vector<float> scores;
  std::int64_t rows, k, stride;

  Lists(std::int64_t n_rows, std::int64_t width, std::int64_t gap = 0)
      : ids(static_cast<std::size_t>(n_rows * (width + gap)), -7),
        scores(ids.size(), -7),
        rows(n_rows),
        k(width),
        stride(width + gap) {}
  TopkOut out() { return {{ids.data(), rows, k, stride}, {scores.data(), rows, k, stride}}; }
  bool operator==(const Lists&) const = default;
};

}  // namespace recfuse::testing
