// The largest entries of a product of sparse matrices; on the CPU only, so not part of bind_all.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "recfuse/sparse_product.hpp"

namespace recfuse::bindings {

/// An array that owns the vector.
template <class T>
Array<T> as_array(std::vector<T>&& values) {
  auto* const kept = new std::vector<T>(std::move(values));
  const py::capsule owner(kept, [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return Array<T>(static_cast<py::ssize_t>(kept->size()), kept->data(), owner);
}

template <class T>
void bind_sparse_product_of(py::module_& m) {
  using namespace py::literals;
  m.def(
      "sparse_product_topk",
      [](const CsrParts& left, const Array<T>& left_values, const CsrParts& right, const Array<T>& right_values,
         std::int64_t k, std::optional<T> above, bool sort, int num_threads) {
        const SparseProductArgs<T> args{.left = view(left),
                                        .right = view(right),
                                        .left_values = span_of(left_values),
                                        .right_values = span_of(right_values),
                                        .k = k,
                                        .above = above,
                                        .order = sort ? ProductOrder::kDescending : ProductOrder::kScipy,
                                        .num_threads = num_threads};
        SparseProduct<T> product;
        {
          const py::gil_scoped_release nogil;
          product = sparse_product_topk(args);
        }
        return py::make_tuple(as_array(std::move(product.indptr)), as_array(std::move(product.indices)),
                              as_array(std::move(product.values)));
      },
      "left"_a.noconvert(), "left_values"_a.noconvert(), "right"_a.noconvert(), "right_values"_a.noconvert(), "k"_a,
      py::kw_only(), "above"_a, "sort"_a, "num_threads"_a);
}

inline void bind_sparse_product(py::module_& m) {
  bind_sparse_product_of<float>(m);
  bind_sparse_product_of<double>(m);
}

}  // namespace recfuse::bindings
