// Users or items: their interactions, their factors, and the order in which they are solved.
#pragma once

#include <cstdint>
#include <vector>

#include "aligned.hpp"
#include "kernels/table.hpp"
#include "recfuse/als.hpp"

namespace recfuse {

/// Unknowns of a row: its factors and, where there are biases, its bias behind them.
inline std::int64_t unknowns(const AlsParams& params) { return params.factors + (params.biases ? 1 : 0); }

/// Rows of so many columns, as kernels take them.
kernels::RowLayout layout_for(std::int64_t columns);

struct FactorTable {
  FactorTable(std::int64_t n_rows, std::int64_t n_columns, int num_threads);

  /// The first columns of all rows, from a matrix or to it.
  void copy_from(const MatrixView<const float>& matrix, int num_threads);
  void copy_to(const MatrixView<float>& matrix, int num_threads) const;

  const float* row(std::int64_t i) const { return values.data() + i * layout.stride; }
  float* row(std::int64_t i) { return values.data() + i * layout.stride; }

  std::int64_t rows;
  kernels::RowLayout layout;
  Room<float> values;
};

struct AlsSide {
  /// `row_noun` ("user") names a row in messages.
  AlsSide(const CsrView& csr, const AlsParams& params, const char* row_noun, int num_threads);

  double penalty(std::int64_t row) const {
    return penalties[penalties.size() == 1 ? 0 : static_cast<std::size_t>(row)];
  }

  /// The unknowns of a row: factors, bias.
  void copy_unknowns(std::int64_t row, const AlsParams& params, float* out) const;

  /// Stores the solution of a row: factors, bias.
  void assign(std::int64_t row, const AlsParams& params, const float* solution);

  CsrView interactions;
  const char* noun;
  FactorTable factors;            // with biases, the last column is 1: the feature that belongs to the other's bias
  std::vector<float> biases;      // empty without
  std::vector<double> penalties;  // l_u of every row, or one for all

  // Rows with entries, longest first, cut into chunks of about equal cost; the first n_huge are no part of a chunk:
  // all threads work on one of them.
  std::vector<std::int32_t> order;
  std::size_t n_huge = 0;
  std::vector<std::size_t> chunks;  // bounds in `order`

 private:
  void schedule(const AlsParams& params);
};

}  // namespace recfuse
