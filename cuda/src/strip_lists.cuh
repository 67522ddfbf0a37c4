// The transpose that sparse rows are multiplied with, cut into strips of ids whose sums fit shared memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "portable.cuh"
#include "recfuse/views.hpp"

namespace recfuse::cuda {

/// Rows that are multiplied: a CSR whose indptr may start above 0. Of ones, there are no values.
template <class Value>
struct SparseRows {
  const std::int64_t* indptr;
  const std::int32_t* columns;
  const Value* values;

  RECFUSE_DEVICE std::int64_t begin(std::int64_t row) const { return indptr[row] - indptr[0]; }
  RECFUSE_DEVICE std::int64_t end(std::int64_t row) const { return indptr[row + 1] - indptr[0]; }
  RECFUSE_DEVICE Value value(std::int64_t entry) const { return values == nullptr ? Value{1} : values[entry]; }
};

/// Per column the rows that have it, strip by strip.
template <class Value>
struct StripLists {
  std::int64_t n_ids;
  int width;  // ids of a strip, at most 65,536
  int n_strips;
  const std::int64_t* starts;  // (columns * n_strips + 1)
  const std::uint16_t* ids;    // within their strip: half the bytes
  const Value* values;

  RECFUSE_DEVICE std::int64_t begin(std::int32_t column, int strip) const {
    return starts[static_cast<std::int64_t>(column) * n_strips + strip];
  }
  RECFUSE_DEVICE std::int64_t end(std::int32_t column, int strip) const { return begin(column, strip + 1); }
  RECFUSE_DEVICE Value value(std::int64_t at) const { return values == nullptr ? Value{1} : values[at]; }
  RECFUSE_DEVICE std::int64_t first_id(int strip) const { return static_cast<std::int64_t>(strip) * width; }
  /// How many ids the strip has: the last one may be shorter.
  RECFUSE_DEVICE int size(int strip) const {
    const std::int64_t left = n_ids - first_id(strip);
    return left < width ? static_cast<int>(left) : width;
  }
};

/// StripLists of a matrix on the device, and its rows.
template <class Device, class Value>
class TransposedRows {
 public:
  /// `value_of(v)` is what an entry counts; `plain`: 1, always.
  template <class ValueOf>
  TransposedRows(Device& device, const CsrView& matrix, std::int64_t width, bool plain, const ValueOf& value_of)
      : n_ids_(matrix.rows), width_(static_cast<int>(width)) {
    const auto nnz = static_cast<std::size_t>(matrix.nnz());
    const std::int32_t* const columns = matrix.indices + matrix.indptr[0];
    const float* const values = matrix.values + matrix.indptr[0];
    std::vector<Value> kept(plain ? 0 : nnz);
    std::transform(values, values + kept.size(), kept.begin(), value_of);
    n_strips_ = static_cast<int>(std::max<std::int64_t>((n_ids_ + width - 1) / width, 1));
    indptr_ = {device, std::span(matrix.indptr, static_cast<std::size_t>(matrix.rows) + 1)};
    columns_ = {device, std::span(columns, nnz)};
    row_values_ = {device, std::span<const Value>(kept)};
    transpose(device, matrix, kept);
  }

  SparseRows<Value> rows() {
    return {indptr_.data(), columns_.data(), row_values_.size() > 0 ? row_values_.data() : nullptr};
  }
  StripLists<Value> lists() {
    return {n_ids_, width_, n_strips_, starts_.data(), ids_.data(), values_.size() > 0 ? values_.data() : nullptr};
  }
  /// Per row: how many additions it takes.
  const std::vector<std::int64_t>& work() const { return work_; }
  int n_strips() const { return n_strips_; }

 private:
  template <class T>
  using Array = typename Device::template Array<T>;

  void transpose(Device& device, const CsrView& matrix, const std::vector<Value>& kept) {
    const std::int64_t first = matrix.indptr[0];
    const auto list_of = [&](std::int64_t e, std::int64_t row) {
      return static_cast<std::size_t>(std::int64_t{matrix.indices[e]} * n_strips_ + row / width_);
    };
    std::vector<std::int64_t> starts(static_cast<std::size_t>(matrix.cols * n_strips_) + 1);
    const auto each_entry = [&](auto&& f) {
      for (std::int64_t row = 0; row < matrix.rows; ++row) {
        for (std::int64_t e = matrix.indptr[row]; e < matrix.indptr[row + 1]; ++e) f(row, e);
      }
    };
    each_entry([&](std::int64_t row, std::int64_t e) { ++starts[list_of(e, row) + 1]; });
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    work_.resize(static_cast<std::size_t>(matrix.rows));
    each_entry([&](std::int64_t row, std::int64_t e) {
      const auto list = static_cast<std::size_t>(std::int64_t{matrix.indices[e]} * n_strips_);
      work_[static_cast<std::size_t>(row)] += starts[list + static_cast<std::size_t>(n_strips_)] - starts[list];
    });
    std::vector<std::int64_t> next(starts.begin(), starts.end() - 1);
    std::vector<std::uint16_t> ids(static_cast<std::size_t>(matrix.nnz()));
    std::vector<Value> values(kept.size());
    each_entry([&](std::int64_t row, std::int64_t e) {
      const auto at = static_cast<std::size_t>(next[list_of(e, row)]++);
      ids[at] = static_cast<std::uint16_t>(row % width_);
      if (!values.empty()) values[at] = kept[static_cast<std::size_t>(e - first)];
    });
    starts_ = {device, std::span<const std::int64_t>(starts)};
    ids_ = {device, std::span<const std::uint16_t>(ids)};
    values_ = {device, std::span<const Value>(values)};
  }

  std::int64_t n_ids_;
  int width_, n_strips_ = 1;
  Array<std::int64_t> indptr_, starts_;
  Array<std::int32_t> columns_;
  Array<std::uint16_t> ids_;
  Array<Value> row_values_, values_;
  std::vector<std::int64_t> work_;
};

}  // namespace recfuse::cuda
