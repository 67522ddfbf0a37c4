#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "arrays.hpp"
#include "recfuse/cosine_knn.hpp"

namespace recfuse::bindings {

template <class Backend>
void bind_cosine_knn(py::module_& m) {
  using namespace py::literals;
  m.def(
      "cosine_knn",
      [](const CsrParts& matrix, std::int64_t k, const std::string& norm, double shrinkage, std::int64_t min_support,
         int num_threads) {
        const CosineKnnArgs args{.matrix = view(matrix),
                                 .k = k,
                                 .norm = norm_named(norm),
                                 .shrinkage = shrinkage,
                                 .min_support = min_support,
                                 .num_threads = num_threads};
        auto ids = new_matrix<std::int32_t>(args.matrix.rows, std::max<std::int64_t>(k, 0));
        auto scores = new_matrix<float>(args.matrix.rows, std::max<std::int64_t>(k, 0));
        const TopkOut out{mutable_view(ids), mutable_view(scores)};
        {
          const py::gil_scoped_release nogil;
          Backend::cosine_knn(args, out);
        }
        return py::make_tuple(ids, scores);
      },
      "matrix"_a.noconvert(), "k"_a, py::kw_only(), "norm"_a, "shrinkage"_a, "min_support"_a, "num_threads"_a);
}

template <class Backend>
void bind_neighbour_topk(py::module_& m) {
  using namespace py::literals;
  m.def(
      "neighbour_topk",
      [](const CsrParts& queries, const CsrParts& neighbours, std::int64_t k, bool normalise,
         const std::optional<CsrParts>& exclude, const std::optional<CsrParts>& allow,
         const std::optional<Array<std::int32_t>>& allow_ids, int num_threads) {
        NeighbourTopkArgs args{.queries = view(queries),
                               .neighbours = view(neighbours),
                               .normalise = normalise,
                               .exclude = view(exclude),
                               .allow = view(allow),
                               .has_allow_ids = allow_ids.has_value(),
                               .k = k,
                               .num_threads = num_threads};
        if (allow_ids) args.allow_ids = span_of(*allow_ids);
        auto ids = new_matrix<std::int32_t>(args.queries.rows, std::max<std::int64_t>(k, 0));
        auto scores = new_matrix<float>(args.queries.rows, std::max<std::int64_t>(k, 0));
        const TopkOut out{mutable_view(ids), mutable_view(scores)};
        {
          const py::gil_scoped_release nogil;
          Backend::neighbour_topk(args, out);
        }
        return py::make_tuple(ids, scores);
      },
      "queries"_a.noconvert(), "neighbours"_a.noconvert(), "k"_a, py::kw_only(), "normalise"_a, "exclude"_a.noconvert(),
      "allow"_a.noconvert(), "allow_ids"_a.noconvert(), "num_threads"_a);
}

/// The scorer and the arrays that it has views of.
class BoundNeighbourScorer {
 public:
  explicit BoundNeighbourScorer(CsrParts neighbours) : neighbours_(std::move(neighbours)), scorer_(view(neighbours_)) {}

  py::tuple topk(const CsrParts& history, std::int64_t k, const std::optional<Array<std::int32_t>>& exclude) const {
    const CsrView row = view(history);
    const auto left_out = exclude ? span_of(*exclude) : std::span<const std::int32_t>();
    auto ids = new_matrix<std::int32_t>(1, std::max<std::int64_t>(k, 0));
    auto scores = new_matrix<float>(1, std::max<std::int64_t>(k, 0));
    const TopkOut out{mutable_view(ids), mutable_view(scores)};
    {
      const py::gil_scoped_release nogil;
      scorer_.topk(row, left_out, out);
    }
    return py::make_tuple(ids, scores);
  }

 private:
  CsrParts neighbours_;
  NeighbourScorer scorer_;
};

inline void bind_neighbour_scorer(py::module_& m) {
  using namespace py::literals;
  py::class_<BoundNeighbourScorer>(m, "NeighbourScorer")
      .def(py::init<CsrParts>(), "neighbours"_a.noconvert())
      .def("topk", &BoundNeighbourScorer::topk, "history"_a.noconvert(), "k"_a, py::kw_only(), "exclude"_a.noconvert());
}

}  // namespace recfuse::bindings
