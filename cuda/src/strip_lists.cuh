// Sparse rows, and the lists that they are multiplied with, cut into strips of ids whose sums fit shared memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "list_kernels.cuh"
#include "recfuse/views.hpp"

namespace recfuse::cuda {

/// A sparse matrix in the memory of a device.
template <class Device>
class DeviceRows {
 public:
  /// `ones`: every value counts as one, and none is copied.
  DeviceRows(Device& device, const CsrView& matrix, bool ones = false)
      : n_rows_(matrix.rows), n_columns_(matrix.cols), n_entries_(matrix.nnz()) {
    const auto nnz = static_cast<std::size_t>(n_entries_);
    indptr_ = {device, std::span(matrix.indptr, static_cast<std::size_t>(n_rows_) + 1)};
    columns_ = {device, std::span(matrix.indices + matrix.indptr[0], nnz)};
    if (!ones) values_ = {device, std::span(matrix.values + matrix.indptr[0], nnz)};
  }

  SparseRows view() const {
    return {indptr_.data(), columns_.data(), values_.size() > 0 ? values_.data() : nullptr, n_rows_, n_entries_};
  }
  std::int64_t n_rows() const { return n_rows_; }
  std::int64_t n_columns() const { return n_columns_; }

 private:
  template <class T>
  using Array = typename Device::template Array<T>;

  std::int64_t n_rows_, n_columns_, n_entries_;
  Array<std::int64_t> indptr_;
  Array<std::int32_t> columns_;
  Array<float> values_;
};

/// From the sizes of lists to where they begin, and the last one ends.
template <class Device>
void place_lists(Device& device, const std::int32_t* sizes, std::int64_t n_lists, std::int64_t* starts) {
  const std::int64_t n_runs = (n_lists + PlaceLists::kRun - 1) / PlaceLists::kRun;
  typename Device::template Array<std::int64_t> runs(device, static_cast<std::size_t>(n_runs));
  device.launch(AddRuns{sizes, n_lists, runs.data()}, n_runs, 1, RunningSums::kSharedBytes);
  device.launch(PlaceRuns{n_runs, runs.data(), starts + n_lists}, 1, 1, RunningSums::kSharedBytes);
  device.launch(PlaceLists{sizes, n_lists, runs.data(), starts}, n_runs, 1, RunningSums::kSharedBytes);
}

/// StripLists of a matrix on the device, made there. Within a list the ids come in any order: each is there once.
template <class Device, class Value, class Id = std::uint16_t>
class DeviceLists {
 public:
  /// Lists of the columns, of the rows that have them; or else of the rows, of the columns that they have. A strip has
  /// `width` ids, which Id can number.
  /// `encode` makes what is kept of a value.
  template <class Encode>
  DeviceLists(Device& device, const DeviceRows<Device>& matrix, bool by_columns, std::int64_t width,
              const Encode& encode)
      : n_ids_(by_columns ? matrix.n_rows() : matrix.n_columns()), width_(static_cast<int>(width)) {
    n_strips_ = static_cast<int>(std::max<std::int64_t>((n_ids_ + width - 1) / width, 1));
    const SparseRows rows = matrix.view();
    const std::int64_t n_lists = (by_columns ? matrix.n_columns() : matrix.n_rows()) * n_strips_;
    const auto nnz = static_cast<std::size_t>(rows.n_entries);
    const Cut cut{by_columns, n_strips_, width_};
    const std::int64_t blocks = blocks_for(rows.n_entries, EachEntry::kEntries);
    Array<std::int32_t> sizes(device, static_cast<std::size_t>(n_lists));
    sizes.clear();
    device.launch(CountEntries{{rows}, cut, sizes.data()}, blocks, 1, 0);
    starts_ = {device, static_cast<std::size_t>(n_lists) + 1};
    place_lists(device, sizes.data(), n_lists, starts_.data());
    ids_ = Array<Id>(device, nnz);
    if (rows.values != nullptr) values_ = Array<Value>(device, nnz);
    device.launch(FillLists<Encode, Id>{{rows}, cut, starts_.data(), sizes.data(), ids_.data(), values(), encode},
                  blocks, 1, 0);
  }

  StripLists<Value, Id> view() const { return {n_ids_, width_, n_strips_, starts_.data(), ids_.data(), values()}; }
  int n_strips() const { return n_strips_; }

  /// Per row: how many additions it takes to multiply it with these lists.
  std::vector<std::int64_t> work(Device& device, const SparseRows& rows) const {
    Array<std::int64_t> work(device, static_cast<std::size_t>(rows.n_rows));
    device.launch(CountWork{rows, starts_.data(), n_strips_, work.data()}, rows.n_rows, 1, CountWork::kSharedBytes);
    return work.all();
  }

 private:
  template <class T>
  using Array = typename Device::template Array<T>;

  static std::int64_t blocks_for(std::int64_t n, std::int64_t each) { return (n + each - 1) / each; }
  Value* values() { return values_.size() > 0 ? values_.data() : nullptr; }
  const Value* values() const { return values_.size() > 0 ? values_.data() : nullptr; }

  std::int64_t n_ids_;
  int width_, n_strips_ = 1;
  Array<std::int64_t> starts_;
  Array<Id> ids_;
  Array<Value> values_;
};

}  // namespace recfuse::cuda
