#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/exact_topk.hpp"
#include "ops/numbered_lists.hpp"
#include "ops/sparse_search.hpp"
#include "ops/sparse_sums.hpp"
#include "recfuse/cosine_knn.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Weighted means: sums, and the weights that they are divided by.
class MeanSums {
 public:
  MeanSums(const kernels::KernelTable& kernels, const kernels::PostingLists& lists, std::int64_t n_ids)
      : sums_(kernels, lists, n_ids, {}, true, 1),
        weights_(kernels, {lists.indptr, lists.ids, nullptr, nullptr, nullptr}, n_ids, {}, true, 1) {}

  void add(const std::int32_t* columns, const float* weights, std::int64_t n) {
    sizes_.resize(at(n));
    for (std::int64_t j = 0; j < n; ++j) sizes_[at(j)] = std::abs(weights[j]);
    sums_.add(columns, weights, n);
    weights_.add(columns, sizes_.data(), n);
  }
  std::int64_t screen(std::int64_t first, std::int64_t n, const DotLimit& limit, std::int32_t* hits) const {
    return sums_.screen(first, n, limit, hits);
  }
  bool reaches(std::int32_t id, const DotLimit& limit) const { return sums_.reaches(id, limit); }
  double dot(std::int32_t id) const { return weights_.dot(id) == 0 ? 0.0 : sums_.dot(id) / weights_.dot(id); }
  void clear(std::int64_t first, std::int64_t n) {
    sums_.clear(first, n);
    weights_.clear(first, n);
  }

 private:
  RealSums sums_;
  RealSums weights_;
  std::vector<float> sizes_;
};

std::vector<char> allowed_items(const NeighbourTopkArgs& args) {
  std::vector<char> allowed(args.has_allow_ids ? at(args.neighbours.cols) : 0);
  for (const std::int32_t id : args.allow_ids) allowed[at(id)] = 1;
  return allowed;
}

bool all_positive(const CsrView& csr) {
  const float* const first = csr.values + csr.indptr[0];
  return std::all_of(first, first + csr.nnz(), [](float value) { return value > 0; });
}

/// Whether every list is added so often that giving its ids numbers costs little.
bool worth_numbers(const NeighbourTopkArgs& args) {
  constexpr std::int64_t kTimes = 16;
  return !args.normalise && args.queries.nnz() >= kTimes * args.neighbours.rows;
}

}  // namespace

void neighbour_topk(const NeighbourTopkArgs& args, const TopkOut& out) {
  validate(args, out);
  std::optional<NumberedLists> numbered;
  if (worth_numbers(args)) numbered.emplace(args.neighbours);
  const kernels::PostingLists lists = numbered ? numbered->lists()
                                               : kernels::PostingLists{args.neighbours.indptr, args.neighbours.indices,
                                                                       nullptr, args.neighbours.values, nullptr};
  const auto& kernels = kernel_table();
  const std::int64_t n_items = args.neighbours.cols;
  const std::vector<char> allowed = allowed_items(args);
  const Filters filters{args.exclude, args.allow};

  const SparseSearch search{args.queries, lists, n_items, args.num_threads};
  const auto visit = [&](const auto& sums, std::int64_t query, std::int32_t number, ExactTopk& best) {
    const auto score = static_cast<float>(sums.dot(number));
    if (score < best.worst_score()) return;  // before a look at its id, which is seldom in the cache
    const std::int32_t id = numbered ? numbered->id(number) : number;
    if (args.has_allow_ids && allowed[at(id)] == 0) return;
    if (filters.admit(query, id)) best.push(score, id);
  };
  if (args.normalise) {
    // A mean is not a sum, so nothing is held back by a limit on sums.
    return search.run([&] { return MeanSums(kernels, lists, n_items); },
                      [](std::int64_t, const ExactTopk&) { return kNoLimit; }, visit, out);
  }
  // Positive terms leave a positive sum, so that need not be said apart.
  const bool positive = all_positive(args.queries) && all_positive(args.neighbours);
  search.run([&] { return RealSums(kernels, lists, n_items, {}, !positive, 1); },
             [](std::int64_t, const ExactTopk& best) -> DotLimit { return {0, screen_threshold(best)}; }, visit, out);
}

}  // namespace recfuse
