// Searches of the tests on the emulator, and the CPU's answers to them.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <type_traits>
#include <vector>

#include "emulator.hpp"
#include "fused_search.cuh"
#include "recfuse/recfuse.hpp"

namespace recfuse::testing {

namespace cuda = recfuse::cuda;
using cuda::Emulator;
using recfuse::MatrixView;

inline std::vector<float> gaussian(std::size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& x : values) x = normal(generator);
  return values;
}

/// Queries and items, and the answer of the CPU to hold the emulator's against.
struct Search {
  std::vector<float> items, queries;
  std::int64_t n_items, n_queries, dim, k;
  recfuse::Metric metric = recfuse::Metric::kDot;
  recfuse::Fusion fusion = recfuse::Fusion::kSum;
  bool hopper = false;
  // Of all queries, or rows of every query's own; and items that are left out.
  std::vector<std::int32_t> allow_ids = {}, allow = {}, exclude = {};
  std::vector<std::int64_t> allow_indptr = {}, exclude_indptr = {};
  bool has_allow_ids = false;

  struct Answer {
    std::vector<std::int32_t> ids;
    std::vector<float> scores;
    bool operator==(const Answer&) const = default;
  };

  template <class Index>
  Answer ask(const Index& index) const {
    return ask(index, [](const auto&) {});
  }
  /// `see` is called with what topk() returns, if anything.
  template <class Index, class See>
  Answer ask(const Index& index, const See& see) const {
    const std::vector<MatrixView<const float>> q{{queries.data(), n_queries, dim}};
    const double weight = 1;
    Answer answer;
    answer.ids.resize(static_cast<std::size_t>(n_queries * k));
    answer.scores.resize(answer.ids.size());
    recfuse::FuseTopkArgs args{.queries = q, .weights = {&weight, 1, 1}, .k = k, .fusion = fusion};
    if (!allow_indptr.empty()) args.allow = {allow_indptr.data(), allow.data(), nullptr, n_queries, n_items};
    if (!exclude_indptr.empty()) args.exclude = {exclude_indptr.data(), exclude.data(), nullptr, n_queries, n_items};
    args.allow_ids = allow_ids;
    args.has_allow_ids = has_allow_ids;
    const recfuse::TopkOut out{{answer.ids.data(), n_queries, k}, {answer.scores.data(), n_queries, k}};
    if constexpr (std::is_void_v<decltype(index.topk(args, out, {}))>) {
      index.topk(args, out, {});
    } else {
      see(index.topk(args, out, {}));
    }
    return answer;
  }

  bool agree(const recfuse::SearchLimits& limits = {}, std::size_t shared_bytes = 227 << 10) const {
    const std::vector<MatrixView<const float>> x{{items.data(), n_items, dim}};
    const recfuse::FusedItemsArgs args{.items = x, .metric = metric};
    Emulator device;
    device.set_most_shared_bytes(shared_bytes);
    device.set_hopper(hopper);
    return ask(recfuse::FusedIndex(args)) == ask(cuda::FusedSearch<Emulator>(device, args, limits));
  }
};

inline Search gaussian_search(std::int64_t n_items, std::int64_t n_queries, std::int64_t dim, std::int64_t k) {
  return {gaussian(static_cast<std::size_t>(n_items * dim), 1),
          gaussian(static_cast<std::size_t>(n_queries * dim), 2),
          n_items,
          n_queries,
          dim,
          k};
}

/// The same search of items whose scores rise with their ids, by less than float16 tells; and of equal items.
inline std::array<Search, 2> hardly_told_apart(const Search& search) {
  Search rising = search, equal = search;
  for (std::int64_t i = 0; i < search.n_items; ++i) {
    for (std::int64_t j = 0; j < search.dim; ++j) {
      const auto at = static_cast<std::size_t>(i * search.dim + j);
      const float first = search.items[static_cast<std::size_t>(j)];
      rising.items[at] = (1 + 1e-6F * static_cast<float>(i)) * first;
      equal.items[at] = first;
    }
  }
  return {rising, equal};
}

/// The same search with some items, a query and single numbers out of the range of float16, and a query of zeros.
inline Search out_of_range(Search search, float huge, float tiny) {
  const auto dim = static_cast<std::size_t>(search.dim);
  for (std::size_t i = 0; i < search.items.size(); i += dim * 7) search.items[i] *= huge;
  for (std::size_t i = 1; i < search.items.size(); i += dim * 3) search.items[i] *= tiny;
  search.queries[0] *= huge;
  search.queries[dim + 1] *= tiny;
  for (std::size_t j = 0; j < dim; ++j) search.queries[2 * dim + j] = 0;
  return search;
}

}  // namespace recfuse::testing
