// Squared distances of given pairs, and rows within a range; on the CPU only, so not part of bind_all.
#pragma once

#include <algorithm>
#include <utility>

#include "arrays.hpp"
#include "recfuse/nearest_rows.hpp"

namespace recfuse::bindings {

inline void bind_nearest_rows(py::module_& m) {
  using namespace py::literals;
  m.def(
      "nearest_candidates",
      [](const FloatMatrix& queries, const FloatMatrix& items, const Array<std::int32_t>& candidates, std::int64_t k,
         int num_threads) {
        const NearestCandidatesArgs args{
            .queries = view(queries), .items = view(items), .candidates = view(candidates), .num_threads = num_threads};
        HostLists lists(args.queries.rows, std::max<std::int64_t>(k, 0), 0);
        const TopkOut out = lists.lists();
        {
          const py::gil_scoped_release nogil;
          nearest_candidates(args, out);
        }
        return lists.result();
      },
      "queries"_a.noconvert(), "items"_a.noconvert(), "candidates"_a.noconvert(), "k"_a, py::kw_only(),
      "num_threads"_a);
  m.def(
      "rows_in_range",
      [](const FloatMatrix& queries, const FloatMatrix& items, float limit, bool products, int num_threads) {
        const RowsInRangeArgs args{.queries = view(queries),
                                   .items = view(items),
                                   .by = products ? Nearness::kProduct : Nearness::kDistance,
                                   .limit = limit,
                                   .num_threads = num_threads};
        RowsInRange found;
        {
          const py::gil_scoped_release nogil;
          found = rows_in_range(args);
        }
        return py::make_tuple(as_array(std::move(found.indptr)), as_array(std::move(found.ids)),
                              as_array(std::move(found.values)));
      },
      "queries"_a.noconvert(), "items"_a.noconvert(), "limit"_a, py::kw_only(), "products"_a, "num_threads"_a);
}

}  // namespace recfuse::bindings
