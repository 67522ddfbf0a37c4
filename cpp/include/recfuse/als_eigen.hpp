// Eigenvectors of a symmetric matrix, in float64.
#pragma once

#include <cstdint>
#include <vector>

namespace recfuse {

struct Eigen {
  std::vector<double> values;
  std::vector<double> vectors;  // row i, of n elements, belongs to values[i]; orthonormal
};

/// Of a full symmetric matrix of n rows, `stride` apart: Householder's tridiagonal form, then implicit QL steps.
/// Empty where the matrix is not finite or the steps do not converge.
Eigen eigen_of(const double* matrix, std::int64_t n, std::int64_t stride);

}  // namespace recfuse
