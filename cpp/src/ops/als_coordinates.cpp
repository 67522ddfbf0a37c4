#include "ops/als_coordinates.hpp"

#include <algorithm>
#include <numeric>

#include "isa/dispatch.hpp"
#include "recfuse/als_eigen.hpp"

namespace recfuse {
namespace {

using kernels::kPanel;
using kernels::kTurnedRows;

constexpr double kSmallestEigenvalue = 0x1p-24;  // of the largest, for the preconditioner: float32 holds no less
// Traces of a matrix and its inverse: half of the digits of float32 are left. Beyond, entries whose coordinates nearly
// cancel keep none (test_als.py, "a triangle that float32 does not hold").
constexpr double kMostCondition = 0x1p24;
constexpr std::int64_t kSample = 43 * kTurnedRows;  // entries
// Mean square of the relative error of an element: half a unit of 2^-7, uniform, over the mantissas.
constexpr double kRoundingNoise = 2.4e-6;
constexpr double kMostNoise = 0x1p-16;

/// Of the upper triangle U, U^-1.
std::vector<double> inverse_of_upper(const std::vector<double>& upper, std::int64_t n) {
  std::vector<double> inverse(upper.size(), 0.0);
  for (std::int64_t r = n - 1; r >= 0; --r) {
    double* row = inverse.data() + r * n;
    row[r] = 1;
    for (std::int64_t k = r + 1; k < n; ++k) {
      const double u = upper[static_cast<std::size_t>(r * n + k)];
      const double* below = inverse.data() + k * n;
      for (std::int64_t c = k; c < n; ++c) row[c] -= u * below[c];
    }
    const double pivot = upper[static_cast<std::size_t>(r * n + r)];
    for (std::int64_t c = r; c < n; ++c) row[c] /= pivot;
  }
  return inverse;
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

Coordinates::Panels Coordinates::by_panels(const std::vector<double>& square, std::int64_t n,
                                           const kernels::RowLayout& layout, bool transposed) {
  const std::int64_t n_panels = layout.width / kPanel;
  Panels panels{AlignedVector<float>(static_cast<std::size_t>(layout.width * layout.width), 0.0F), {}, {}};
  for (std::int64_t panel = 0; panel < n_panels; ++panel) {
    float* values = panels.values.data() + panel * kPanel * layout.width;
    std::int64_t begin = n, end = 0;
    for (std::int64_t r = 0; r < n; ++r) {
      for (std::int64_t c = panel * kPanel; c < std::min(n, (panel + 1) * kPanel); ++c) {
        const auto value = static_cast<float>(square[static_cast<std::size_t>(transposed ? c * n + r : r * n + c)]);
        values[r * kPanel + c % kPanel] = value;
        if (value == 0) continue;
        begin = std::min(begin, r);
        end = r + 1;
      }
    }
    panels.begin.push_back(static_cast<std::int32_t>(std::min(begin, end)));
    panels.end.push_back(static_cast<std::int32_t>(end));
  }
  return panels;
}

bool Coordinates::find_identity(const SharedGram& gram, std::int64_t n, double penalty) {
  std::vector<double> upper(static_cast<std::size_t>(n * n), 0.0);
  for (std::int64_t r = 0; r < n; ++r) {
    std::copy_n(gram.exact.data() + r * layout.stride + r, n - r, upper.data() + r * n + r);
    upper[static_cast<std::size_t>(r * n + r)] += penalty;
  }
  if (!factor_in_float64(upper.data(), n, n)) return false;
  const std::vector<double> inverse = inverse_of_upper(upper, n);
  const auto squares = [](const std::vector<double>& x) {
    return std::inner_product(x.begin(), x.end(), x.begin(), 0.0);
  };
  if (!(squares(upper) * squares(inverse) < kMostCondition)) return false;
  there_ = by_panels(upper, n, layout, true);
  others_ = by_panels(inverse, n, layout, false);
  back_ = by_panels(inverse, n, layout, true);
  return true;
}

Coordinates::Coordinates(const AlsParams& params, const SharedGram& gram, const kernels::RowLayout& row_layout,
                         std::optional<double> shared_penalty)
    : layout(row_layout) {
  if (gram.exact.empty()) return;
  const std::int64_t n = unknowns(params);
  is_identity = shared_penalty && find_identity(gram, n, *shared_penalty);
  if (is_identity) return;
  Eigen eigen = eigen_of(gram.exact.data(), n, layout.stride);
  found = !eigen.values.empty();
  if (!found) return;
  there_ = by_panels(eigen.vectors, n, layout, true);
  back_ = by_panels(eigen.vectors, n, layout, false);
  eigenvalues = std::move(eigen.values);
  for (double& value : eigenvalues) value = std::max(value, 0.0);
  least = kSmallestEigenvalue * *std::max_element(eigenvalues.begin(), eigenvalues.end());
}

void Coordinates::multiply(const float* from, const Panels& matrix, float* to) const {
  if (matrix.values.empty()) {
    std::copy_n(from, kTurnedRows * layout.stride, to);
  } else {
    kernel_table().multiply_rows(from, {matrix.values.data(), matrix.begin.data(), matrix.end.data()}, layout, to);
  }
}

bool rounding_is_harmless(const AlsParams& params, double mean, const Coordinates& coordinates, const AlsSide& others,
                          const AlsSide& side) {
  const CsrView& csr = side.interactions;
  const std::int64_t stride = coordinates.layout.stride, size = unknowns(params);
  AlignedVector<float> x(static_cast<std::size_t>(kTurnedRows * stride), 0.0F), y = x, turned_x = x, turned_y = x;
  Misfit misfit;
  for (std::int64_t first = 0; first < kSample; first += kTurnedRows) {
    double values[kTurnedRows];
    for (std::int64_t i = 0; i < kTurnedRows; ++i) {
      const std::int64_t entry = csr.indptr[0] + csr.nnz() * (first + i) / kSample;
      const std::int64_t row = std::upper_bound(csr.indptr, csr.indptr + csr.rows + 1, entry) - csr.indptr - 1;
      values[i] = csr.values[entry];
      side.copy_unknowns(row, params, x.data() + i * stride);
      const std::int32_t id = csr.indices[entry];
      std::copy_n(others.factors.row(id), size, y.data() + i * stride);
      if (params.biases) values[i] -= others.biases[static_cast<std::size_t>(id)];
    }
    coordinates.turn(x.data(), turned_x.data());
    coordinates.turn_others(y.data(), turned_y.data());
    for (std::int64_t i = 0; i < kTurnedRows; ++i) {
      misfit.add(params, mean, values[i], turned_x.data() + i * stride, turned_y.data() + i * stride, size);
    }
  }
  return misfit.noise <= kMostNoise * misfit.error;
}

}  // namespace recfuse
