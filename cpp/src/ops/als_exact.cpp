#include <cmath>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "ops/als_solve.hpp"

namespace recfuse {
namespace {

[[noreturn]] void fail_singular(const AlsParams& params, const AlsSide& side, std::int64_t row) {
  std::ostringstream message;
  message << "als: the system of " << side.noun << ' ' << row << " is singular; got regularization "
          << params.regularization << (params.regularization == 0 ? ". Raise it above 0." : ". Raise it.");
  throw std::domain_error(message.str());
}

[[noreturn]] void fail_overflow(const AlsSide& side, std::int64_t row) {
  std::ostringstream message;
  message << "als: the factors of " << side.noun << ' ' << row
          << " must fit in float32; they overflow. Scale the values of user_items down.";
  throw std::domain_error(message.str());
}

}  // namespace

void solve_row_in_float64(const AlsParams& params, double mean, const SharedGram& gram, const AlsSide& others,
                          AlsSide& side, std::int64_t row) {
  const std::int64_t size = unknowns(params), stride = others.factors.layout.stride;
  std::vector<double> a(static_cast<std::size_t>(size * stride), 0.0), x(static_cast<std::size_t>(size), 0.0);
  if (!gram.exact.empty()) a.assign(gram.exact.begin(), gram.exact.begin() + size * stride);
  const CsrView& csr = side.interactions;
  for (std::int64_t j = 0; j < csr.row_size(row); ++j) {
    const std::int32_t id = csr.row_indices(row)[j];
    const double value = csr.row_values(row)[j];
    const float* y = others.factors.row(id);
    double weight = 1, target = value;
    if (params.objective == AlsObjective::kImplicit) {
      weight = extra_confidence(value, params.alpha, params.base_confidence);
      target = preference(value) * confidence(value, params.alpha, params.base_confidence);
    } else if (params.biases) {
      target -= mean + others.biases[static_cast<std::size_t>(id)];
    }
    for (std::int64_t r = 0; r < size; ++r) {
      x[static_cast<std::size_t>(r)] += target * y[r];
      const double scaled = weight * y[r];
      for (std::int64_t c = r; c < size; ++c) a[static_cast<std::size_t>(r * stride + c)] += scaled * y[c];
    }
  }
  for (std::int64_t j = 0; j < size; ++j) a[static_cast<std::size_t>(j * stride + j)] += side.penalty(row);
  if (!factor_in_float64(a.data(), stride, size)) fail_singular(params, side, row);
  solve_in_float64(a.data(), stride, size, x.data());
  std::vector<float> solution;
  for (const double value : x) {
    solution.push_back(static_cast<float>(value));
    if (!std::isfinite(solution.back())) fail_overflow(side, row);
  }
  side.assign(row, params, solution.data());
}

}  // namespace recfuse
