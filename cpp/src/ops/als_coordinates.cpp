#include "ops/als_coordinates.hpp"

#include <algorithm>

#include "isa/dispatch.hpp"
#include "recfuse/als_eigen.hpp"

namespace recfuse {
namespace {

constexpr double kSmallestEigenvalue = 0x1p-24;  // of the largest, for the preconditioner: float32 holds no less
constexpr std::int64_t kSample = 512;            // entries
// Mean square of the relative error of an element: half a unit of 2^-7, uniform, over the mantissas.
constexpr double kRoundingNoise = 2.4e-6;
constexpr double kMostNoise = 0x1p-16;

AlignedVector<float> as_matrix(const std::vector<double>& square, std::int64_t n, const kernels::RowLayout& layout,
                               bool transpose) {
  AlignedVector<float> matrix(static_cast<std::size_t>(layout.width * layout.stride), 0.0F);
  for (std::int64_t r = 0; r < n; ++r) {
    for (std::int64_t c = 0; c < n; ++c) {
      const auto at = static_cast<std::size_t>(transpose ? c * n + r : r * n + c);
      matrix[static_cast<std::size_t>(r * layout.stride + c)] = static_cast<float>(square[at]);
    }
  }
  return matrix;
}

/// Squared errors of entries, and what rounding adds to them.
struct Misfit {
  double error = 0;
  double noise = 0;

  void add(const AlsParams& params, double mean, double value, const float* x, const float* y, std::int64_t n) {
    double predicted = 0, squares = 0, weight = 1, target = value - mean;
    for (std::int64_t j = 0; j < n; ++j) {
      const double product = static_cast<double>(x[j]) * y[j];
      predicted += product;
      squares += product * product;
    }
    if (params.objective == AlsObjective::kImplicit) {
      weight = confidence(value, params.alpha, params.base_confidence);
      target = preference(value);
    }
    error += weight * (target - predicted) * (target - predicted);
    // What is rounded counts by how far the confidence is from 1, and that is at most 1 below it.
    noise += std::max(weight, 1.0) * squares * kRoundingNoise;
  }
};

}  // namespace

Coordinates::Coordinates(const AlsParams& params, const SharedGram& gram, const kernels::RowLayout& row_layout)
    : layout(row_layout) {
  if (gram.exact.empty()) return;
  const std::int64_t n = unknowns(params);
  Eigen eigen = eigen_of(gram.exact.data(), n, layout.stride);
  found = !eigen.values.empty();
  if (!found) return;
  there = as_matrix(eigen.vectors, n, layout, true);
  back = as_matrix(eigen.vectors, n, layout, false);
  eigenvalues = std::move(eigen.values);
  for (double& value : eigenvalues) value = std::max(value, 0.0);
  least = kSmallestEigenvalue * *std::max_element(eigenvalues.begin(), eigenvalues.end());
}

void Coordinates::multiply(const float* from, const AlignedVector<float>& matrix, float* to) const {
  if (matrix.empty()) {
    std::copy_n(from, kernels::kTurnedRows * layout.stride, to);
  } else {
    kernel_table().multiply_rows(from, matrix.data(), layout, to);
  }
}

bool rounding_is_harmless(const AlsParams& params, double mean, const Coordinates& coordinates, const AlsSide& others,
                          const AlsSide& side) {
  const CsrView& csr = side.interactions;
  const std::int64_t stride = coordinates.layout.stride, size = unknowns(params);
  AlignedVector<float> x(static_cast<std::size_t>(kernels::kTurnedRows * stride), 0.0F), y = x, turned_x = x,
                                                                                         turned_y = x;
  Misfit misfit;
  for (std::int64_t first = 0; first < kSample; first += kernels::kTurnedRows) {
    double values[kernels::kTurnedRows];
    for (std::int64_t i = 0; i < kernels::kTurnedRows; ++i) {
      const std::int64_t entry = csr.indptr[0] + csr.nnz() * (first + i) / kSample;
      const std::int64_t row = std::upper_bound(csr.indptr, csr.indptr + csr.rows + 1, entry) - csr.indptr - 1;
      values[i] = csr.values[entry];
      side.copy_unknowns(row, params, x.data() + i * stride);
      const std::int32_t id = csr.indices[entry];
      std::copy_n(others.factors.row(id), size, y.data() + i * stride);
      if (params.biases) values[i] -= others.biases[static_cast<std::size_t>(id)];
    }
    coordinates.turn(x.data(), turned_x.data());
    coordinates.turn(y.data(), turned_y.data());
    for (std::int64_t i = 0; i < kernels::kTurnedRows; ++i) {
      misfit.add(params, mean, values[i], turned_x.data() + i * stride, turned_y.data() + i * stride, size);
    }
  }
  return misfit.noise <= kMostNoise * misfit.error;
}

}  // namespace recfuse
