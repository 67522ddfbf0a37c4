// The coordinates in which systems of one half-step are solved by steps, and how exact factors must be there.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/als_gram.hpp"

namespace recfuse {

/// The coordinates in which the Gram matrix is diagonal: a system is then this diagonal, the penalty and the row's own
/// entries, and the diagonal part is its preconditioner. Without a Gram matrix, the coordinates as they are.
struct Coordinates {
  Coordinates(const AlsParams& params, const SharedGram& gram, const kernels::RowLayout& layout);

  /// kTurnedRows rows into these coordinates, or back; `to` has room for as many and may not be `from`.
  void turn(const float* from, float* to) const { multiply(from, there, to); }
  void turn_back(const float* from, float* to) const { multiply(from, back, to); }

  bool found = true;  // false: the Gram matrix is not finite
  kernels::RowLayout layout;
  std::vector<double> eigenvalues;  // empty without a Gram matrix
  double least = 0;                 // eigenvalue, for the preconditioner

 private:
  void multiply(const float* from, const AlignedVector<float>& matrix, float* to) const;
  AlignedVector<float> there, back;
};

/// Whether `others` may be rounded to bfloat16: a sample of the entries says that the objective moves by at most 2^-16
/// of itself.
bool rounding_is_harmless(const AlsParams& params, double mean, const Coordinates& coordinates, const AlsSide& others,
                          const AlsSide& side);

}  // namespace recfuse
