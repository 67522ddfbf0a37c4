// Inner products of pairs of sparse rows; on the CPU only, so not part of bind_all.
#pragma once

#include <stdexcept>

#include "arrays.hpp"
#include "recfuse/sparse_pairs.hpp"

namespace recfuse::bindings {

inline void bind_sparse_pairs(py::module_& m) {
  using namespace py::literals;
  m.def(
      "shared_products",
      [](const CsrParts& left, const Array<double>& left_values, const CsrParts& right,
         const Array<double>& right_values, const CsrParts& pairs, int num_threads) {
        const SharedProductsArgs args{.left = view(left),
                                      .right = view(right),
                                      .left_values = span_of(left_values),
                                      .right_values = span_of(right_values),
                                      .pairs = view(pairs),
                                      .num_threads = num_threads};
        const auto n_pairs = std::get<1>(pairs).size();
        Array<double> products(n_pairs);
        Array<std::int32_t> first(n_pairs);
        const auto out = mutable_span(products);
        const auto columns = mutable_span(first);
        {
          const py::gil_scoped_release nogil;
          shared_products(args, out, columns);
        }
        return py::make_tuple(products, first);
      },
      "left"_a.noconvert(), "left_values"_a.noconvert(), "right"_a.noconvert(), "right_values"_a.noconvert(),
      "pairs"_a.noconvert(), py::kw_only(), "num_threads"_a);
}

}  // namespace recfuse::bindings
