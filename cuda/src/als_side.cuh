// Users or items on a device: their interactions, their factors, and the order in which they are solved.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "als_ranges.cuh"
#include "als_rows.cuh"
#include "recfuse/als.hpp"
#include "recfuse/als_memory.hpp"

namespace recfuse::cuda {

/// Where work is cut; tests cut it small. The first two and team_row are part of what a result is.
struct AlsLimits {
  std::int64_t long_row = 4096;  // entries; a row of more is summed in parts of so many
  std::int64_t gram_rows = 256;  // that are added in float32
  std::int64_t parts_bytes = 256 << 20;
  std::int64_t scratch_bytes = 1 << 30;  // of matrices that shared memory does not hold
  std::int64_t team_row = 256;           // entries; the warps of a block share the steps of a row of more
  AlsRoom room = {};                     // beside what is free
};

/// Some of the long rows, and their parts.
struct LongRows {
  std::vector<Part> parts;
  std::vector<std::int32_t> places;  // of the part's row, from the first of these rows on
  std::vector<std::int64_t> bounds;  // of the parts of a row
  std::int64_t end;                  // place in the order where the next begin
};

template <class Device>
struct AlsSideOnDevice {
  template <class T>
  using Array = typename Device::template Array<T>;

  /// `row_noun` ("user") names a row in messages.
  AlsSideOnDevice(Device& device, const CsrView& csr, std::span<const double> row_penalties, int unknowns,
                  const AlsLimits& limits, const char* row_noun, std::int64_t first_row = 0)
      : AlsSideOnDevice(device, csr.rows, row_penalties, unknowns, row_noun, first_row) {
    put_in_order(csr, limits);
    const std::int64_t base = csr.indptr[0];
    const auto nnz = static_cast<std::size_t>(csr.nnz());
    indptr = {device, std::span<const std::int64_t>(bounds)};
    ids = {device, std::span(csr.indices + base, nnz)};
    values = {device, std::span(csr.values + base, nnz)};
    order_there = {device, std::span<const std::int32_t>(order)};
  }

  /// Without interactions: those are streamed, a piece at a time.
  AlsSideOnDevice(Device& device, std::int64_t n_rows, std::span<const double> row_penalties, int unknowns,
                  const char* row_noun, std::int64_t first_row = 0)
      : noun(row_noun), first(first_row), rows(n_rows), size(unknowns) {
    penalties = {device, row_penalties};
    table = {device, static_cast<std::size_t>(rows * size)};
    table.clear();
  }

  /// Some rows of `all`: with the interactions `csr`, which are to be at `at`, and the factors that are there.
  AlsSideOnDevice(Device& device, AlsSideOnDevice& all, const RowRange& range, const CsrView& csr,
                  const AlsLimits& limits, char* at)
      : noun(all.noun),
        first(all.first + range.first),
        rows(range.size()),
        size(all.size),
        longest_dual(all.longest_dual) {
    put_in_order(csr, limits);
    const auto n = static_cast<std::size_t>(rows), nnz = static_cast<std::size_t>(csr.nnz());
    const auto take = [&](auto& array, std::size_t elements) {
      using T = std::remove_pointer_t<decltype(array.data())>;
      array = {device, static_cast<T*>(static_cast<void*>(at)), elements};
      at += elements * sizeof(T);
    };
    take(indptr, n + 1);  // as packed() has them
    take(ids, nnz);
    take(values, nnz);
    take(order_there, n);
    const bool one_penalty = all.penalties.size() == 1;
    penalties = {device, all.penalties.data() + (one_penalty ? 0 : range.first), one_penalty ? 1 : n};
    table = {device, all.table.data() + range.first * size, n * static_cast<std::size_t>(size)};
  }

  /// Writes the interactions as the device is to have them: packed_bytes() of them.
  void pack(const CsrView& csr, char* to) const {
    const auto put = [&](const auto* from, std::size_t n) {
      std::memcpy(to, from, n * sizeof(*from));
      to += n * sizeof(*from);
    };
    const auto nnz = static_cast<std::size_t>(csr.nnz());
    put(bounds.data(), bounds.size());
    put(csr.indices + csr.indptr[0], nnz);
    put(csr.values + csr.indptr[0], nnz);
    put(order.data(), order.size());
  }

  std::int64_t length(std::int32_t row) const {
    return bounds[static_cast<std::size_t>(row) + 1] - bounds[static_cast<std::size_t>(row)];
  }
  std::int64_t nnz() const { return bounds.back(); }
  /// How many rows are, which `order` begins with.
  std::int64_t longer_than(std::int64_t entries) const {
    const auto is_longer = [&](std::int32_t row) { return length(row) > entries; };
    return std::partition_point(order.begin(), order.end(), is_longer) - order.begin();
  }

  /// Rows from place `from` on, of `most` parts together, or one row.
  LongRows long_rows(std::int64_t from, std::int64_t most, std::int64_t part) const {
    LongRows some{{}, {}, {0}, from};
    for (; some.end < n_long; ++some.end) {
      const auto row = static_cast<std::size_t>(order[static_cast<std::size_t>(some.end)]);
      const std::int64_t begin = bounds[row], last = bounds[row + 1], n = (last - begin + part - 1) / part;
      if (some.end > from && static_cast<std::int64_t>(some.parts.size()) + n > most) break;
      for (std::int64_t at = begin; at < last; at += part) {
        some.parts.push_back({at, std::min(last, at + part)});
        some.places.push_back(static_cast<std::int32_t>(some.end - from));
      }
      some.bounds.push_back(static_cast<std::int64_t>(some.parts.size()));
    }
    return some;
  }

  /// Factors and biases from the host, and back.
  void write(Device& device, const MatrixView<const float>& factors, std::span<const float> biases) {
    std::vector<float> all(static_cast<std::size_t>(rows * size), 0.0F);
    for (std::int64_t i = 0; i < rows; ++i) {
      std::copy_n(factors.row(i), factors.cols, all.begin() + i * size);
      if (!biases.empty()) all[static_cast<std::size_t>((i + 1) * size - 1)] = biases[static_cast<std::size_t>(i)];
    }
    table.write(all);
    device.wait();  // `all` goes
  }
  void read(const MatrixView<float>& factors, std::span<float> biases) const {
    const std::vector<float> all = table.all();
    for (std::int64_t i = 0; i < rows; ++i) {
      std::copy_n(all.begin() + i * size, factors.cols, factors.row(i));
      if (!biases.empty()) biases[static_cast<std::size_t>(i)] = all[static_cast<std::size_t>((i + 1) * size - 1)];
    }
  }

  const char* noun;
  std::int64_t first;  // number of the first row, where these are some of several devices' rows
  std::int64_t rows;
  int size;                          // unknowns of a row: factors and, where there are biases, its bias behind them
  std::vector<std::int64_t> bounds;  // of rows among the entries
  std::vector<std::int32_t> order;
  std::int64_t n_long = 0;        // at the beginning of `order`
  std::int64_t longest_dual = 0;  // row that has a system of its entries, where rows are solved exactly
  Array<std::int64_t> indptr;
  Array<std::int32_t> ids, order_there;
  Array<float> values;
  Array<double> penalties;
  Array<float> table;  // (rows, size)

 private:
  void put_in_order(const CsrView& csr, const AlsLimits& limits) {
    for (std::int64_t i = 0; i <= csr.rows; ++i) bounds.push_back(csr.indptr[i] - csr.indptr[0]);
    for (std::int32_t row = 0; row < rows; ++row) order.push_back(row);
    // The longest first: who comes last has little to do.
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return length(a) > length(b); });
    n_long = longer_than(limits.long_row);
  }
};

}  // namespace recfuse::cuda
