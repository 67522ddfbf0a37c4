// NumPy <-> views. Never converts and never copies an input: Python has prepared the types.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "recfuse/views.hpp"

namespace recfuse::bindings {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

using FloatMatrix = Array<float>;

/// Whether there may be several of the devices that a module is for: ops then take their numbers.
template <class Backend>
inline constexpr bool kHasDevices = !std::is_same_v<typename Backend::Matrix, FloatMatrix>;
using DoubleMatrix = Array<double>;

/// indptr, indices, (rows, cols), values or None: what _inputs.py makes of a SciPy matrix.
using CsrParts = std::tuple<Array<std::int64_t>, Array<std::int32_t>, std::pair<std::int64_t, std::int64_t>,
                            std::optional<Array<float>>>;

template <class T>
MatrixView<const T> view(const Array<T>& array) {
  if (array.ndim() != 2)
    throw std::invalid_argument("array must have 2 dimensions; got " + std::to_string(array.ndim()));
  return {array.data(), array.shape(0), array.shape(1)};
}

template <class T>
MatrixView<T> mutable_view(Array<T>& array) {
  return {array.mutable_data(), array.shape(0), array.shape(1)};
}

template <class T>
std::vector<MatrixView<const T>> views(const std::vector<Array<T>>& arrays) {
  std::vector<MatrixView<const T>> result;
  result.reserve(arrays.size());
  for (const auto& array : arrays) result.push_back(view(array));
  return result;
}

template <class T>
std::span<const T> span_of(const Array<T>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

template <class T>
std::span<T> mutable_span(Array<T>& array) {
  return {array.mutable_data(), static_cast<std::size_t>(array.size())};
}

inline CsrView view(const CsrParts& csr) {
  const auto& [indptr, indices, shape, values] = csr;
  if (indptr.size() != shape.first + 1) throw std::invalid_argument("indptr must have one entry more than rows");
  return {indptr.data(), indices.data(), values ? values->data() : nullptr, shape.first, shape.second};
}

inline CsrView view(const std::optional<CsrParts>& csr) { return csr ? view(*csr) : CsrView{}; }

/// Whether SciPy's parts, as they are, can be a view. False is no error yet: Python finds out why, and may mend it.
inline bool is_canonical_csr(const py::array& indptr, const py::array& indices,
                             std::pair<std::int64_t, std::int64_t> shape, int num_threads) {
  const auto check = [&]<class Index>(Index) {
    if (!py::isinstance<Array<Index>>(indptr) || !py::isinstance<Array<Index>>(indices)) return false;
    const auto row_starts = py::reinterpret_borrow<Array<Index>>(indptr);
    const auto columns = py::reinterpret_borrow<Array<Index>>(indices);
    return recfuse::is_canonical_csr(span_of(row_starts), span_of(columns), shape.first, shape.second, num_threads);
  };
  return check(std::int32_t{}) || check(std::int64_t{});
}

template <class T>
Array<T> new_matrix(std::int64_t rows, std::int64_t cols) {
  return Array<T>(std::vector<py::ssize_t>{rows, cols});
}

/// An array that owns the vector.
template <class T>
Array<T> as_array(std::vector<T>&& values) {
  auto kept = std::make_unique<std::vector<T>>(std::move(values));
  const py::capsule owner(kept.get(), [](void* p) { delete static_cast<std::vector<T>*>(p); });
  std::vector<T>& owned = *kept.release();
  return Array<T>(static_cast<py::ssize_t>(owned.size()), owned.data(), owner);
}

/// Lists of a search in NumPy arrays; with `n_parts` terms of every score, if there are any to be returned.
class HostLists {
 public:
  HostLists(std::int64_t n, std::int64_t k, std::int64_t n_parts)
      : n_parts_(n_parts),
        ids_(new_matrix<std::int32_t>(n, k)),
        scores_(new_matrix<float>(n, k)),
        parts_(new_matrix<double>(n_parts > 0 ? n : 0, k * n_parts)) {}

  TopkOut lists() { return {mutable_view(ids_), mutable_view(scores_)}; }
  MatrixView<double> parts() { return n_parts_ > 0 ? mutable_view(parts_) : MatrixView<double>{}; }
  py::tuple result() {
    if (n_parts_ == 0) return py::make_tuple(ids_, scores_);
    return py::make_tuple(ids_, scores_, parts_.reshape({ids_.shape(0), ids_.shape(1), n_parts_}));
  }

 private:
  std::int64_t n_parts_;
  Array<std::int32_t> ids_;
  Array<float> scores_;
  Array<double> parts_;
};

}  // namespace recfuse::bindings
