#include "ops/als_gram.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "isa/dispatch.hpp"
#include "ops/ordered_sum.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kChunkRows = 4096;
constexpr std::int64_t kMicroRows = 256;

std::size_t square_size(const kernels::RowLayout& layout) {
  return static_cast<std::size_t>(layout.width * layout.stride);
}

/// Mean squares of the columns: a diagonal that is right in scale, the column of ones included.
std::vector<float> column_mean_squares(const FactorTable& table, int num_threads) {
  std::vector<double> sums(static_cast<std::size_t>(table.layout.width), 0.0);
  sum_in_order((table.rows + kChunkRows - 1) / kChunkRows, num_threads, sums,
               [&](std::int64_t chunk, int, std::span<double> out) {
                 const std::int64_t end = std::min(table.rows, (chunk + 1) * kChunkRows);
                 for (std::int64_t i = chunk * kChunkRows; i < end; ++i) {
                   const float* row = table.row(i);
                   for (std::size_t c = 0; c < out.size(); ++c) out[c] += static_cast<double>(row[c]) * row[c];
                 }
               });
  std::vector<float> means;
  for (const double sum : sums) means.push_back(static_cast<float>(sum / static_cast<double>(table.rows)));
  return means;
}

}  // namespace

void widen_upper(const float* gram, const kernels::RowLayout& layout, double* sum) {
  for (std::int64_t r = 0; r < layout.width; ++r) {
    for (std::int64_t c = r; c < layout.width; ++c) sum[r * layout.stride + c] += gram[r * layout.stride + c];
  }
}

std::vector<double> gram_of(const FactorTable& table, int num_threads) {
  const kernels::KernelTable& kernels = kernel_table();
  const kernels::RowLayout& layout = table.layout;
  const std::int64_t n_chunks = (table.rows + kChunkRows - 1) / kChunkRows;
  const AlignedVector<float> zeros(square_size(layout), 0.0F);
  std::vector<AlignedVector<float>> scratch(static_cast<std::size_t>(plan_workers(n_chunks, num_threads)));
  std::vector<double> gram(square_size(layout), 0.0);
  sum_in_order(n_chunks, num_threads, gram, [&](std::int64_t chunk, int worker, std::span<double> out) {
    auto& micro = scratch[static_cast<std::size_t>(worker)];
    micro.resize(square_size(layout));
    const std::int64_t end = std::min(table.rows, (chunk + 1) * kChunkRows);
    for (std::int64_t i = chunk * kChunkRows; i < end; i += kMicroRows) {
      kernels.add_gram(table.row(i), layout, std::min(kMicroRows, end - i), zeros.data(), micro.data(), {});
      widen_upper(micro.data(), layout, out.data());
    }
  });
  for (std::int64_t r = 0; r < layout.width; ++r) {
    for (std::int64_t c = 0; c < r; ++c) {
      gram[static_cast<std::size_t>(r * layout.stride + c)] = gram[static_cast<std::size_t>(c * layout.stride + r)];
    }
  }
  return gram;
}

bool factor_in_float64(double* a, std::int64_t stride, std::int64_t size) {
  // What rounding leaves of a pivot that should be 0, relative to its diagonal element.
  const double smallest = 4 * static_cast<double>(size) * std::numeric_limits<double>::epsilon();
  std::vector<double> diagonal;
  for (std::int64_t j = 0; j < size; ++j) diagonal.push_back(a[j * stride + j]);
  for (std::int64_t j = 0; j < size; ++j) {
    double* row = a + j * stride;
    const double pivot = row[j];
    if (!(pivot > smallest * diagonal[static_cast<std::size_t>(j)]) || !std::isfinite(pivot)) return false;
    const double root = std::sqrt(pivot);
    for (std::int64_t c = j; c < size; ++c) row[c] /= root;
    for (std::int64_t i = j + 1; i < size; ++i) {
      double* below = a + i * stride;
      const double x = row[i];
      for (std::int64_t c = i; c < size; ++c) below[c] -= x * row[c];
    }
  }
  return true;
}

void solve_in_float64(const double* a, std::int64_t stride, std::int64_t size, double* x) {
  for (std::int64_t j = 0; j < size; ++j) {
    const double* row = a + j * stride;
    x[j] /= row[j];
    for (std::int64_t c = j + 1; c < size; ++c) x[c] -= row[c] * x[j];
  }
  for (std::int64_t j = size - 1; j >= 0; --j) {
    const double* row = a + j * stride;
    for (std::int64_t c = j + 1; c < size; ++c) x[j] -= row[c] * x[c];
    x[j] /= row[j];
  }
}

SharedGram::SharedGram(const AlsParams& params, const AlsSide& others, int num_threads) {
  const kernels::RowLayout& layout = others.factors.layout;
  const bool cg = params.solver == LinearSolver::kCg && !params.double_precision;
  if (params.objective == AlsObjective::kImplicit) exact = gram_of(others.factors, num_threads);
  base.assign(square_size(layout), 0.0F);
  for (std::size_t i = 0; i < exact.size(); ++i) base[i] = static_cast<float>(exact[i]);
  for (std::int64_t j = unknowns(params); j < layout.width; ++j) {
    base[static_cast<std::size_t>(j * layout.stride + j)] = 1.0F;
  }
  if (cg && params.objective == AlsObjective::kExplicit) squares = column_mean_squares(others.factors, num_threads);
}

}  // namespace recfuse
