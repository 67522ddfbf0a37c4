// What all systems of one half-step share: the Gram matrix of the other side's factors.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/als_side.hpp"

namespace recfuse {

/// Adds `gram`, a float32 sum over few rows, to a float64 one; upper triangles.
void widen_upper(const float* gram, const kernels::RowLayout& layout, double* sum);

/// sum_i y_i y_i' in float64, symmetric, (width, width): float32 only within 256 rows.
std::vector<double> gram_of(const FactorTable& table, int num_threads);

/// Upper Cholesky A = U'U in place, in float64, of the leading `size` rows. False where A is singular: a pivot is
/// within rounding of 0, or not finite.
bool factor_in_float64(double* a, std::int64_t stride, std::int64_t size);
void solve_in_float64(const double* a, std::int64_t stride, std::int64_t size, double* x);

struct SharedGram {
  SharedGram(const AlsParams& params, const AlsSide& others, int num_threads);

  std::vector<double> exact;   // G, or nothing where the objective has none
  AlignedVector<float> base;   // what every system starts from: G, with ones on the padding's diagonal
  std::vector<float> squares;  // mean squares of the columns, preconditioner of the explicit systems
};

}  // namespace recfuse
