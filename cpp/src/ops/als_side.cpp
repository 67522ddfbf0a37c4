#include "ops/als_side.hpp"

#include <algorithm>

#include "parallel_for.hpp"
#include "recfuse/als_problem.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kLine = 16;             // floats of a cache line, and the widest register
constexpr std::int64_t kHugeRow = 1 << 16;     // entries
constexpr std::int64_t kHugeFloats = 1 << 22;  // 16 MiB of gathered rows, which conjugate gradients keep
constexpr std::int64_t kMostChunks = 1024;
constexpr std::int64_t kSmallestChunk = 1024;  // entries: about 50 us

}  // namespace

kernels::RowLayout layout_for(std::int64_t columns) {
  const std::int64_t width = (columns + kLine - 1) / kLine * kLine;
  // A stride of 1 KiB or a multiple would put a column of many rows into a few sets of the cache.
  return {width, width % 256 == 0 ? width + kLine : width};
}

namespace {

/// body(first, end) on all threads: new pages take longer to come than to be written.
template <class Body>
void for_rows(std::int64_t n_rows, int num_threads, const Body& body) {
  constexpr std::int64_t kRows = 4096;
  parallel_for((n_rows + kRows - 1) / kRows, num_threads,
               [&](std::int64_t chunk, int) { body(chunk * kRows, std::min(n_rows, (chunk + 1) * kRows)); });
}

}  // namespace

FactorTable::FactorTable(std::int64_t n_rows, std::int64_t n_columns, int num_threads)
    : rows(n_rows), layout(layout_for(n_columns)), values(static_cast<std::size_t>(n_rows * layout.stride)) {
  for_rows(rows, num_threads, [&](std::int64_t first, std::int64_t end) { std::fill(row(first), row(end), 0.0F); });
}

void FactorTable::copy_from(const MatrixView<const float>& matrix, int num_threads) {
  for_rows(rows, num_threads, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t i = first; i < end; ++i) std::copy_n(matrix.row(i), matrix.cols, row(i));
  });
}

void FactorTable::copy_to(const MatrixView<float>& matrix, int num_threads) const {
  for_rows(rows, num_threads, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t i = first; i < end; ++i) std::copy_n(row(i), matrix.cols, matrix.row(i));
  });
}

AlsSide::AlsSide(const CsrView& csr, const AlsParams& params, const char* row_noun, int num_threads)
    : interactions(csr), noun(row_noun), factors(csr.rows, unknowns(params), num_threads) {
  const auto n_rows = static_cast<std::size_t>(csr.rows);
  if (params.biases) {
    biases.assign(n_rows, 0.0F);
    for (std::int64_t i = 0; i < csr.rows; ++i) factors.row(i)[params.factors] = 1.0F;
  }
  penalties = als_penalties(csr, params);
  schedule(params);
}

void AlsSide::copy_unknowns(std::int64_t row, const AlsParams& params, float* out) const {
  std::copy_n(factors.row(row), params.factors, out);
  if (params.biases) out[params.factors] = biases[static_cast<std::size_t>(row)];
}

void AlsSide::assign(std::int64_t row, const AlsParams& params, const float* solution) {
  std::copy_n(solution, params.factors, factors.row(row));
  if (params.biases) biases[static_cast<std::size_t>(row)] = solution[params.factors];
}

void AlsSide::schedule(const AlsParams& params) {
  for (std::int64_t i = 0; i < interactions.rows; ++i) {
    if (interactions.row_size(i) > 0) order.push_back(static_cast<std::int32_t>(i));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return interactions.row_size(a) > interactions.row_size(b); });
  const auto is_huge = [&](std::int32_t row) {
    const std::int64_t n = interactions.row_size(row);
    if (params.solver == LinearSolver::kBlock) return false;
    return n > kHugeRow || (params.solver == LinearSolver::kCg && n * factors.layout.stride > kHugeFloats);
  };
  while (n_huge < order.size() && is_huge(order[n_huge])) ++n_huge;
  // Factoring a system costs about as much as adding width / 3 entries to it.
  const auto cost = [&](std::int32_t row) { return interactions.row_size(row) + factors.layout.width / 3; };
  std::int64_t total = 0;
  for (std::size_t i = n_huge; i < order.size(); ++i) total += cost(order[i]);
  const std::int64_t chunk_cost = std::max(total / kMostChunks, kSmallestChunk);
  std::int64_t filled = chunk_cost;
  for (std::size_t i = n_huge; i < order.size(); ++i) {
    if (filled >= chunk_cost) {
      chunks.push_back(i);
      filled = 0;
    }
    filled += cost(order[i]);
  }
  chunks.push_back(order.size());
}

}  // namespace recfuse
