// The transpose that a sparse row is multiplied with, and what the values of a matrix allow.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/table.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

/// What decides how inner products are added up.
struct ValueTraits {
  bool positive = true;  // no zero and nothing negative: a sum is above 0 where rows share an entry
  bool whole = true;     // every value times `scale` is a whole number
  bool all_ones = true;  // and that number is 1
  float scale = 1;       // a power of two
  float largest = 0;     // value
};

ValueTraits traits_of(const CsrView& csr, int num_threads);

/// |row|^2 in float64, in ascending column order.
std::vector<double> squared_norms(const CsrView& csr, int num_threads);

enum class PostingValues { kNone, kWhole, kReal };

/// The transpose of a matrix. Its rows get numbers, those with most entries first: the sums that are touched most
/// often then lie in a few cache lines (docs/performance.md).
class Postings {
 public:
  Postings(const CsrView& matrix, PostingValues kind, float scale);

  kernels::PostingLists lists() const {
    return {indptr_.data(), ids_.get(), narrow_ids_.get(), values_.get(), integers_.get()};
  }
  std::int64_t n_rows() const { return static_cast<std::int64_t>(order_.size()); }
  std::int64_t list_size(std::int32_t column) const {
    return indptr_[static_cast<std::size_t>(column) + 1] - indptr_[static_cast<std::size_t>(column)];
  }
  /// The row that has this number.
  std::int32_t row(std::int64_t number) const { return order_[static_cast<std::size_t>(number)]; }

 private:
  std::vector<std::int32_t> order_;
  std::vector<std::int64_t> indptr_;
  std::unique_ptr<std::int32_t[]> ids_;
  std::unique_ptr<std::uint16_t[]> narrow_ids_;  // half the bytes, where 16 bits hold every number
  std::unique_ptr<float[]> values_;
  std::unique_ptr<std::uint16_t[]> integers_;
};

}  // namespace recfuse
