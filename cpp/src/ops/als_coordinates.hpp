// The coordinates in which systems of one half-step are solved by steps, and how exact factors must be there.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ops/als_gram.hpp"

namespace recfuse {

/// The coordinates in which the Gram matrix is diagonal: a system is then this diagonal, the penalty and the row's own
/// entries, and the diagonal part is its preconditioner. Without a Gram matrix, the coordinates as they are.
///
/// With a penalty that all rows share, and where float32 holds it, those in which the Gram matrix and the penalty
/// together are the identity, U'U: a side's x is U x, the others' y is U'^-1 y. They need no eigenvectors, and
/// triangles are half of the products. The steps are the same in either.
struct Coordinates {
  Coordinates(const AlsParams& params, const SharedGram& gram, const kernels::RowLayout& layout,
              std::optional<double> shared_penalty = std::nullopt);

  /// kTurnedRows rows of the side that is solved into these coordinates, or back, or rows of the others; `to` has room
  /// for as many and may not be `from`.
  void turn(const float* from, float* to) const { multiply(from, there_, to); }
  void turn_back(const float* from, float* to) const { multiply(from, back_, to); }
  void turn_others(const float* from, float* to) const { multiply(from, is_identity ? others_ : there_, to); }

  bool found = true;  // false: the Gram matrix is not finite
  kernels::RowLayout layout;
  bool is_identity = false;         // the Gram matrix and the penalty, here
  std::vector<double> eigenvalues;  // empty without a Gram matrix, and then
  double least = 0;                 // eigenvalue, for the preconditioner

 private:
  /// As multiply_rows takes it.
  struct Panels {
    AlignedVector<float> values;
    std::vector<std::int32_t> begin, end;
  };

  static Panels by_panels(const std::vector<double>& square, std::int64_t n, const kernels::RowLayout& layout,
                          bool transposed);
  bool find_identity(const SharedGram& gram, std::int64_t n, double penalty);
  void multiply(const float* from, const Panels& matrix, float* to) const;

  Panels there_, back_, others_;
};

/// Whether `others` may be rounded to bfloat16: a sample of the entries says that the objective moves by at most 2^-16
/// of itself.
bool rounding_is_harmless(const AlsParams& params, double mean, const Coordinates& coordinates, const AlsSide& others,
                          const AlsSide& side);

}  // namespace recfuse
