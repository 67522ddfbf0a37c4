#include "ops/transpose.hpp"

#include <algorithm>

#include "parallel_for.hpp"

namespace recfuse {
namespace {

/// Bounds of n_parts runs of rows with about the same number of entries each.
std::vector<std::int64_t> split_by_entries(const CsrView& csr, int n_parts) {
  std::vector<std::int64_t> bounds{0};
  for (int part = 1; part < n_parts; ++part) {
    const std::int64_t target = csr.indptr[0] + csr.nnz() / n_parts * part;
    const std::int64_t* row = std::lower_bound(csr.indptr + bounds.back(), csr.indptr + csr.rows, target);
    bounds.push_back(row - csr.indptr);
  }
  bounds.push_back(csr.rows);
  return bounds;
}

}  // namespace

OwnedCsr transpose(const CsrView& csr, int num_threads) {
  const auto cols = static_cast<std::size_t>(csr.cols), nnz = static_cast<std::size_t>(csr.nnz());
  // Every part counts its own entries per column; the counts of all parts take no more room than the matrix.
  const int workers = plan_workers(csr.rows, num_threads);
  const int n_parts =
      static_cast<int>(std::clamp<std::int64_t>(csr.nnz() / std::max<std::int64_t>(csr.cols, 1), 1, workers));
  const std::vector<std::int64_t> bounds = split_by_entries(csr, n_parts);
  std::vector<std::vector<std::int64_t>> next(static_cast<std::size_t>(n_parts));
  parallel_for(n_parts, num_threads, [&](std::int64_t part, int) {
    auto& counts = next[static_cast<std::size_t>(part)];
    counts.assign(cols, 0);
    const std::int64_t end = csr.indptr[bounds[static_cast<std::size_t>(part) + 1]];
    for (std::int64_t j = csr.indptr[bounds[static_cast<std::size_t>(part)]]; j < end; ++j) {
      ++counts[static_cast<std::size_t>(csr.indices[j])];
    }
  });

  OwnedCsr out{.indptr = std::vector<std::int64_t>(cols + 1),
               .indices = std::vector<std::int32_t>(nnz),
               .values = std::vector<float>(nnz),
               .rows = csr.cols,
               .cols = csr.rows};
  std::int64_t position = 0;
  for (std::size_t column = 0; column < cols; ++column) {
    out.indptr[column] = position;
    for (auto& counts : next) {
      const std::int64_t count = counts[column];
      counts[column] = position;
      position += count;
    }
  }
  out.indptr[cols] = position;

  parallel_for(n_parts, num_threads, [&](std::int64_t part, int) {
    auto& at = next[static_cast<std::size_t>(part)];
    for (std::int64_t row = bounds[static_cast<std::size_t>(part)]; row < bounds[static_cast<std::size_t>(part) + 1];
         ++row) {
      for (std::int64_t j = csr.indptr[row]; j < csr.indptr[row + 1]; ++j) {
        const auto to = static_cast<std::size_t>(at[static_cast<std::size_t>(csr.indices[j])]++);
        out.indices[to] = static_cast<std::int32_t>(row);
        out.values[to] = csr.values[j];
      }
    }
  });
  return out;
}

}  // namespace recfuse
