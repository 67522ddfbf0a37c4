// A random sparse matrix that the C++ tests own.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "recfuse/views.hpp"

namespace recfuse::testing {

struct Csr {
  std::int64_t rows, cols;
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<float> values;

  /// One entry in `one_in`, values 1 to 5.
  Csr(std::int64_t n_rows, std::int64_t n_cols, unsigned one_in, unsigned seed) : rows(n_rows), cols(n_cols) {
    std::mt19937 random(seed);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int32_t col = 0; col < cols; ++col) {
        if (random() % one_in != 0) continue;
        indices.push_back(col);
        values.push_back(static_cast<float>(random() % 5 + 1));
      }
      indptr.push_back(static_cast<std::int64_t>(indices.size()));
    }
  }

  CsrView view() const { return {indptr.data(), indices.data(), values.data(), rows, cols}; }

  std::vector<double> dense() const {
    std::vector<double> all(static_cast<std::size_t>(rows * cols), 0.0);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (auto j = static_cast<std::size_t>(indptr[static_cast<std::size_t>(row)]);
           j < static_cast<std::size_t>(indptr[static_cast<std::size_t>(row) + 1]); ++j) {
        all[static_cast<std::size_t>(row * cols + indices[j])] = values[j];
      }
    }
    return all;
  }
};

}  // namespace recfuse::testing
