// The largest entries of every row of a product of sparse matrices.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "recfuse/views.hpp"

namespace recfuse {

enum class ProductOrder {
  kDescending,  // the largest first, equal ones by column
  kScipy,       // as in the product that SciPy makes: by the first index that the factors share, the last one first
};

/// For float and double.
template <class T>
struct SparseProductArgs {
  CsrView left;   // (n_rows, n), its pattern
  CsrView right;  // (n, n_cols), its pattern
  std::span<const T> left_values;
  std::span<const T> right_values;
  std::int64_t k = 10;
  std::optional<double> above = {};  // only entries that are larger
  ProductOrder order = ProductOrder::kDescending;
  int num_threads = 0;
};

/// A matrix by rows, of the entries that were asked for.
template <class T>
struct SparseProduct {
  std::vector<std::int64_t> indptr;
  std::vector<std::int32_t> indices;
  std::vector<T> values;
};

/// For every row of left * right the k largest entries, of equal ones those of the smaller columns; what the factors
/// share an index for is an entry, zero or not, and a NaN is none. An entry is a float64 sum in the order of the
/// indices, rounded once. The result depends on neither num_threads nor the instruction set.
/// Throws std::invalid_argument, std::out_of_range.
template <class T>
SparseProduct<T> sparse_product_topk(const SparseProductArgs<T>& args);

/// The checks of sparse_product_topk().
template <class T>
void validate(const SparseProductArgs<T>& args);

}  // namespace recfuse
