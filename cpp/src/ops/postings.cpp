#include "ops/postings.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "parallel_for.hpp"

namespace recfuse {
namespace {

constexpr float kLargestScale = 16;  // half stars and the like; finer values are summed as reals

constexpr std::int64_t kRun = 1 << 16;  // values, or rows, that a thread takes at a time

std::int64_t runs_of(std::int64_t n) { return (n + kRun - 1) / kRun; }

bool is_whole(float v) {
  // float32 has no fractions from 2^23 on; below it, conversion is quicker than std::floor without SSE4.
  return std::abs(v) >= 0x1p23F || v == static_cast<float>(static_cast<std::int32_t>(v));
}

ValueTraits traits_of_run(const float* begin, const float* end) {
  ValueTraits traits;
  for (const float* v = begin; v != end; ++v) {
    traits.positive &= *v > 0;
    traits.largest = std::max(traits.largest, *v);
  }
  for (const float* v = begin; traits.whole && v != end; ++v) {
    while (!is_whole(*v * traits.scale) && traits.scale <= kLargestScale) traits.scale *= 2;
    traits.whole = traits.scale <= kLargestScale;
  }
  traits.all_ones = traits.whole && std::all_of(begin, end, [&](float v) { return v * traits.scale == 1; });
  return traits;
}

}  // namespace

std::vector<double> squared_norms(const CsrView& csr, int num_threads) {
  constexpr std::int64_t kRows = 256;
  std::vector<double> norms(static_cast<std::size_t>(csr.rows));
  parallel_for((csr.rows + kRows - 1) / kRows, num_threads, [&](std::int64_t run, int) {
    for (std::int64_t row = run * kRows; row < std::min(csr.rows, (run + 1) * kRows); ++row) {
      double sum = 0;
      for (std::int64_t e = csr.indptr[row]; e < csr.indptr[row + 1]; ++e) {
        const double v = csr.values[e];
        sum += v * v;
      }
      norms[static_cast<std::size_t>(row)] = sum;
    }
  });
  return norms;
}

ValueTraits traits_of(const CsrView& csr, int num_threads) {
  const float* const begin = csr.values + csr.indptr[0];
  const std::int64_t n = csr.nnz();
  std::vector<ValueTraits> runs(static_cast<std::size_t>(runs_of(n)));
  parallel_for(runs_of(n), num_threads, [&](std::int64_t run, int) {
    runs[static_cast<std::size_t>(run)] = traits_of_run(begin + run * kRun, begin + std::min(n, (run + 1) * kRun));
  });
  ValueTraits traits;
  for (const ValueTraits& run : runs) {
    traits.positive &= run.positive;
    traits.whole &= run.whole;
    traits.scale = std::max(traits.scale, run.scale);
    traits.largest = std::max(traits.largest, run.largest);
  }
  // Ones in a finer unit than their run's are none.
  for (const ValueTraits& run : runs) traits.all_ones &= run.all_ones && run.scale == traits.scale;
  return traits;
}

Postings::Postings(const CsrView& matrix, PostingValues kind, float scale)
    : order_(static_cast<std::size_t>(matrix.rows)), indptr_(static_cast<std::size_t>(matrix.cols) + 1) {
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(),
                   [&](std::int32_t a, std::int32_t b) { return matrix.row_size(a) > matrix.row_size(b); });
  const auto nnz = static_cast<std::size_t>(matrix.nnz());
  const bool narrow = matrix.rows <= 65536;
  if (narrow) narrow_ids_ = std::make_unique_for_overwrite<std::uint16_t[]>(nnz);
  if (!narrow) ids_ = std::make_unique_for_overwrite<std::int32_t[]>(nnz);
  if (kind == PostingValues::kWhole) integers_ = std::make_unique_for_overwrite<std::uint16_t[]>(nnz);
  if (kind == PostingValues::kReal) values_ = std::make_unique_for_overwrite<float[]>(nnz);

  for (std::int64_t e = matrix.indptr[0]; e < matrix.indptr[matrix.rows]; ++e) {
    ++indptr_[static_cast<std::size_t>(matrix.indices[e]) + 1];
  }
  std::partial_sum(indptr_.begin(), indptr_.end(), indptr_.begin());
  std::vector<std::int64_t> next(indptr_.begin(), indptr_.end() - 1);
  for (std::size_t number = 0; number < order_.size(); ++number) {
    const std::int64_t row = order_[number];
    for (std::int64_t e = matrix.indptr[row]; e < matrix.indptr[row + 1]; ++e) {
      const auto at = static_cast<std::size_t>(next[static_cast<std::size_t>(matrix.indices[e])]++);
      if (narrow) narrow_ids_[at] = static_cast<std::uint16_t>(number);
      if (!narrow) ids_[at] = static_cast<std::int32_t>(number);
      if (values_) values_[at] = matrix.values[e];
      if (integers_) integers_[at] = static_cast<std::uint16_t>(matrix.values[e] * scale);
    }
  }
}

}  // namespace recfuse
