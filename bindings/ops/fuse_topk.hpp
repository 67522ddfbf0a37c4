#pragma once

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "arrays.hpp"
#include "recfuse/fuse_topk.hpp"

namespace recfuse::bindings {

/// The index and the arrays that it has views of. A matrix is an array of NumPy; on a device, it may lie there.
template <class Backend>
class BoundFusedIndex {
  using Matrix = typename Backend::Matrix;

 public:
  static constexpr bool kOnDevice = kHasDevices<Backend>;

  BoundFusedIndex(std::vector<Matrix> items, std::optional<Array<std::uint8_t>> present, const std::string& metric,
                  const std::vector<std::string>& names, const std::string& op, std::int64_t most_kept_bytes,
                  int num_threads, std::vector<int> devices = {})
      : items_(std::move(items)), devices_(std::move(devices)) {
    const auto x = views(items_);
    FusedItemsArgs args{.items = x,
                        .metric = metric_named(metric, op),
                        .num_threads = num_threads,
                        .names = names,
                        .op = op,
                        .most_kept_bytes = most_kept_bytes};
    if (present) args.present = view(*present);
    const auto where = where_are(items_);
    const py::gil_scoped_release nogil;
    if constexpr (kOnDevice) {
      index_ = std::make_unique<typename Backend::FusedIndex>(args, std::get<0>(where), devices_);
    } else {
      index_ = std::make_unique<typename Backend::FusedIndex>(args);
    }
  }

  py::tuple topk(const std::vector<Matrix>& queries, const DoubleMatrix& weights, std::int64_t k,
                 const std::string& fusion, const std::string& missing, const std::optional<CsrParts>& exclude,
                 const std::optional<CsrParts>& allow, const std::optional<Array<std::int32_t>>& allow_ids,
                 bool contributions, int num_threads) const {
    FuseTopkArgs args{.queries = {},
                      .weights = view(weights),
                      .k = k,
                      .fusion = fusion_named(fusion),
                      .missing = missing_named(missing),
                      .exclude = view(exclude),
                      .allow = view(allow),
                      .has_allow_ids = allow_ids.has_value(),
                      .num_threads = num_threads};
    if (allow_ids) args.allow_ids = span_of(*allow_ids);
    if constexpr (kOnDevice) {  // results are where the queries are
      if (all_on_device(queries)) return search<typename Backend::Lists>(queries, args, contributions, devices_[0]);
    }
    return search<HostLists>(queries, args, contributions);
  }

  py::tuple score_pairs(const std::vector<Matrix>& queries, const DoubleMatrix& weights, const CsrParts& pairs,
                        const std::string& fusion, const std::string& missing, int num_threads) const {
    const auto q = views(queries);
    const auto pattern = view(pairs);
    Array<float> scores(pattern.nnz());
    auto parts = new_matrix<double>(pattern.nnz(), index_->n_modalities());
    const FuseTopkArgs args{.queries = q,
                            .weights = view(weights),
                            .fusion = fusion_named(fusion),
                            .missing = missing_named(missing),
                            .num_threads = num_threads};
    const std::span<float> out(scores.mutable_data(), static_cast<std::size_t>(scores.size()));
    const auto parts_view = mutable_view(parts);
    const auto where = where_are(queries);
    {
      const py::gil_scoped_release nogil;
      std::apply([&](const auto&... placement) { index_->score_pairs(args, pattern, out, parts_view, placement...); },
                 where);
    }
    return py::make_tuple(scores, parts);
  }

  py::tuple rank_pairs(const std::vector<Matrix>& queries, const DoubleMatrix& weights, const CsrParts& pairs,
                       const std::string& fusion, const std::string& missing, const std::optional<CsrParts>& exclude,
                       int num_threads) const {
    const auto q = views(queries);
    const auto pattern = view(pairs);
    Array<std::int32_t> rank(pattern.nnz()), first(pattern.nnz()), last(pattern.nnz()), n_ranked(pattern.rows);
    const FuseTopkArgs args{.queries = q,
                            .weights = view(weights),
                            .fusion = fusion_named(fusion),
                            .missing = missing_named(missing),
                            .exclude = view(exclude),
                            .num_threads = num_threads};
    const PairRanks out{mutable_span(rank), mutable_span(first), mutable_span(last), mutable_span(n_ranked)};
    const auto where = where_are(queries);
    {
      const py::gil_scoped_release nogil;
      std::apply([&](const auto&... placement) { index_->rank_pairs(args, pattern, out, placement...); }, where);
    }
    return py::make_tuple(rank, first, last, n_ranked);
  }

  py::dict plan() const {
    using namespace py::literals;
    const SearchPlan plan = index_->plan();
    return py::dict(
        "screen"_a = plan.screen, "reason"_a = plan.reason, "item_bytes"_a = plan.item_bytes,
        "rounded_bytes"_a = plan.rounded_bytes, "unit_classes"_a = plan.unit_classes,
        "scored_per_query"_a = plan.scored_per_query < 0 ? py::object(py::none()) : py::cast(plan.scored_per_query),
        "order"_a = plan.order, "order_reason"_a = plan.order_reason,
        "skipped_by_norm"_a = plan.skipped_by_norm < 0 ? py::object(py::none()) : py::cast(plan.skipped_by_norm));
  }

 private:
  template <class Lists, class... Where>
  py::tuple search(const std::vector<Matrix>& queries, FuseTopkArgs args, bool contributions, Where... where_to) const {
    const auto q = views(queries);
    args.queries = q;
    const std::int64_t n_queries = q.empty() ? 0 : q[0].rows;
    Lists lists(n_queries, std::max<std::int64_t>(args.k, 0), contributions ? index_->n_modalities() : 0, where_to...);
    const TopkOut out = lists.lists();
    const auto parts = lists.parts();
    const auto where = where_are(queries);
    {
      const py::gil_scoped_release nogil;
      std::apply([&](const auto&... placement) { index_->topk(args, out, parts, placement...); }, where);
    }
    return lists.result();
  }

  /// What a device has to know of matrices beside their views.
  static auto where_are(const std::vector<Matrix>& matrices) {
    if constexpr (kOnDevice) {
      return std::make_tuple(placement_of(matrices));
    } else {
      return std::tuple<>();
    }
  }

  std::vector<Matrix> items_;
  std::vector<int> devices_;  // by number, of those that there are several of
  std::unique_ptr<typename Backend::FusedIndex> index_;
};

template <class Backend>
void bind_fuse_topk(py::module_& m) {
  using Index = BoundFusedIndex<Backend>;
  using namespace py::literals;
  py::class_<Index> index(m, "FusedIndex");
  const auto define_init = [&](auto init, const auto&... more) {
    index.def(init, "items"_a.noconvert(), "present"_a.noconvert(), "metric"_a, "names"_a, "op"_a, "most_kept_bytes"_a,
              "num_threads"_a, more...);
  };
  using Items = std::vector<typename Backend::Matrix>;
  using Present = std::optional<Array<std::uint8_t>>;
  using Names = std::vector<std::string>;
  if constexpr (Index::kOnDevice) {
    define_init(py::init<Items, Present, const std::string&, const Names&, const std::string&, std::int64_t, int,
                         std::vector<int>>(),
                "devices"_a = std::vector<int>{0});
  } else {
    define_init(py::init<Items, Present, const std::string&, const Names&, const std::string&, std::int64_t, int>());
  }
  index
      .def("topk", &Index::topk, "queries"_a.noconvert(), "weights"_a.noconvert(), "k"_a, py::kw_only(), "fusion"_a,
           "missing"_a, "exclude"_a.noconvert(), "allow"_a.noconvert(), "allow_ids"_a.noconvert(), "contributions"_a,
           "num_threads"_a)
      .def("plan", &Index::plan)
      .def("score_pairs", &Index::score_pairs, "queries"_a.noconvert(), "weights"_a.noconvert(), "pairs"_a.noconvert(),
           py::kw_only(), "fusion"_a, "missing"_a, "num_threads"_a)
      .def("rank_pairs", &Index::rank_pairs, "queries"_a.noconvert(), "weights"_a.noconvert(), "pairs"_a.noconvert(),
           py::kw_only(), "fusion"_a, "missing"_a, "exclude"_a.noconvert(), "num_threads"_a);
}

}  // namespace recfuse::bindings
