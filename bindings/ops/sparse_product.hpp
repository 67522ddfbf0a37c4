// The largest entries of a product of sparse matrices; on the CPU only, so not part of bind_all.
#pragma once

#include <optional>
#include <stdexcept>
#include <variant>

#include "arrays.hpp"
#include "recfuse/sparse_product.hpp"

namespace recfuse::bindings {

using RealValues = std::variant<Array<float>, Array<double>>;

inline void bind_sparse_product(py::module_& m) {
  using namespace py::literals;
  m.def(
      "sparse_product_topk",
      [](const CsrParts& left, const RealValues& left_values, const CsrParts& right, const RealValues& right_values,
         std::int64_t k, std::optional<double> above, bool sort, int num_threads) {
        const auto of_type = [&]<class T>(const Array<T>& values) -> py::tuple {
          const auto* const others = std::get_if<Array<T>>(&right_values);
          if (others == nullptr) throw std::invalid_argument("right_values must have the dtype of left_values");
          const SparseProductArgs<T> args{.left = view(left),
                                          .right = view(right),
                                          .left_values = span_of(values),
                                          .right_values = span_of(*others),
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
        };
        return std::visit(of_type, left_values);
      },
      "left"_a.noconvert(), "left_values"_a.noconvert(), "right"_a.noconvert(), "right_values"_a.noconvert(), "k"_a,
      py::kw_only(), "above"_a, "sort"_a, "num_threads"_a);
}

}  // namespace recfuse::bindings
