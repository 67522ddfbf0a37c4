#include "recfuse/cosine_knn.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/postings.hpp"
#include "ops/sparse_search.hpp"
#include "ops/sparse_sums.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

double largest(const std::vector<double>& x) { return x.empty() ? 0.0 : *std::max_element(x.begin(), x.end()); }

PostingValues values_for(bool countable, const ValueTraits& traits) {
  if (!countable) return PostingValues::kReal;
  return traits.all_ones ? PostingValues::kNone : PostingValues::kWhole;
}

/// One call: norms, the transpose, and how inner products are added up.
class NeighbourSearch {
 public:
  explicit NeighbourSearch(const CosineKnnArgs& args);

  void run(const TopkOut& out) const;

 private:
  template <class MakeSums>
  void run_with(const MakeSums& make_sums, const TopkOut& out) const;
  bool counts_suffice(const ValueTraits& traits) const;
  DotLimit limit(std::int64_t row, const ExactTopk& best) const;

  float score(const CountSums& sums, std::int64_t row, std::int32_t id) const {
    const double dot = sums.dot(id);
    // Of rows of ones, the shared entries are all that there is to a corated norm.
    if (args_.norm == Norm::kCorated) return cosine(dot, dot, dot, args_.shrinkage);
    return cosine(dot, row_norms_[at(row)], squared_[at(id)], args_.shrinkage);
  }
  float score(const RealSums& sums, std::int64_t row, std::int32_t id) const {
    return cosine(sums.dot(id), row_norms_[at(row)], squared_[at(id)], args_.shrinkage);
  }
  float score(const CoratedRowSums& sums, std::int64_t, std::int32_t id) const {
    const auto& s = sums.sums(id);
    return cosine(s.dot, s.squared_u, s.squared_v, args_.shrinkage);
  }
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  const CosineKnnArgs& args_;
  const kernels::KernelTable& kernels_;
  ValueTraits traits_;
  std::vector<double> row_norms_;  // squared
  bool counting_;
  Postings postings_;
  std::vector<double> squared_;  // the same, by the numbers of the rows
  std::vector<double> norms_;
  std::vector<float> screen_norms_;
};

NeighbourSearch::NeighbourSearch(const CosineKnnArgs& args)
    : args_(args),
      kernels_(kernel_table()),
      traits_(traits_of(args.matrix)),
      row_norms_(squared_norms(args.matrix)),
      counting_(counts_suffice(traits_)),
      postings_(args.matrix, values_for(counting_, traits_), traits_.scale) {
  for (std::int64_t number = 0; number < postings_.n_rows(); ++number) {
    squared_.push_back(row_norms_[at(postings_.row(number))]);
    norms_.push_back(std::sqrt(squared_.back()));
    screen_norms_.push_back(static_cast<float>(norms_.back()));
  }
}

/// Whether sums of whole numbers, exact in any order and half as wide, give what the score needs.
bool NeighbourSearch::counts_suffice(const ValueTraits& traits) const {
  if (!traits.positive || !traits.whole) return false;
  if (!traits.all_ones && (args_.norm == Norm::kCorated || args_.min_support > 1)) return false;
  // Cauchy-Schwarz: no inner product exceeds the largest squared norm.
  const double units = static_cast<double>(traits.scale) * static_cast<double>(traits.scale);
  return largest(row_norms_) * units < 0x1p31;
}

/// score >= t, written as a limit on the inner product: dot >= t * (norm * norm' + shrinkage).
DotLimit NeighbourSearch::limit(std::int64_t row, const ExactTopk& best) const {
  const double t = screen_threshold(best);
  if (std::isinf(t)) return kNoLimit;
  if (args_.norm == Norm::kFull) return {t * std::sqrt(row_norms_[at(row)]), t * args_.shrinkage};
  if (!counting_) return {t, t * args_.shrinkage};
  return {0, t * args_.shrinkage / (1 - t)};  // dot >= t * (dot + shrinkage)
}

template <class MakeSums>
void NeighbourSearch::run_with(const MakeSums& make_sums, const TopkOut& out) const {
  const kernels::PostingLists lists = postings_.lists();
  const SparseSearch search{args_.matrix, lists, postings_.n_rows(), args_.num_threads};
  search.run(
      make_sums, [&](std::int64_t row, const ExactTopk& best) { return limit(row, best); },
      [&](const auto& sums, std::int64_t row, std::int32_t number, ExactTopk& best) {
        const std::int32_t id = postings_.row(number);
        if (id == row) return;
        best.push(score(sums, row, number), id);
      },
      out);
}

void NeighbourSearch::run(const TopkOut& out) const {
  const auto lists = postings_.lists();
  const std::int64_t least = args_.min_support;
  if (counting_) {
    return run_with([&] { return CountSums(kernels_, lists, screen_norms_, traits_.all_ones, traits_.scale, least); },
                    out);
  }
  if (args_.norm == Norm::kCorated) {
    return run_with([&] { return CoratedRowSums(kernels_, lists, postings_.n_rows(), least); }, out);
  }
  const bool support = !traits_.positive || least > 1;
  run_with([&] { return RealSums(kernels_, lists, postings_.n_rows(), norms_, support, least); }, out);
}

}  // namespace

void cosine_knn(const CosineKnnArgs& args, const TopkOut& out) {
  validate(args, out);
  NeighbourSearch(args).run(out);
}

}  // namespace recfuse
