// Inner products of given pairs of sparse rows, in float64.
#pragma once

#include <cstdint>
#include <span>

#include "recfuse/views.hpp"

namespace recfuse {

struct SharedProductsArgs {
  CsrView left;   // (n_left, n), its pattern
  CsrView right;  // (n_right, n), its pattern
  std::span<const double> left_values;
  std::span<const double> right_values;
  CsrView pairs;  // (n_left, n_right): the pairs, those of a row in any order
  int num_threads = 0;
};

/// For every pair, in the order of the pairs: the sum of products over the columns that both rows have, in ascending
/// order, and the first of these columns, -1 where there is none. The result does not depend on num_threads.
/// Throws std::invalid_argument, std::out_of_range.
void shared_products(const SharedProductsArgs& args, std::span<double> products, std::span<std::int32_t> first);

/// The checks of shared_products().
void validate(const SharedProductsArgs& args);

}  // namespace recfuse
