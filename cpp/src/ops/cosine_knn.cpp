#include "recfuse/cosine_knn.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/pair_search.hpp"
#include "ops/postings.hpp"
#include "ops/sparse_search.hpp"
#include "ops/sparse_sums.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

// Pairs of rows are met once where k is small: a threshold then holds back most of them. Beyond this share of the rows,
// keeping the k best of all rows at the same time would take more room than it saves time.
constexpr std::int64_t kPairsLeastRows = 4;

double largest(const std::vector<double>& x) { return x.empty() ? 0.0 : *std::max_element(x.begin(), x.end()); }

PostingValues values_for(bool countable, const ValueTraits& traits) {
  if (!countable) return PostingValues::kReal;
  return traits.all_ones ? PostingValues::kNone : PostingValues::kWhole;
}

/// What an inner product needs to know, whoever adds it up.
struct Facts {
  ValueTraits traits;
  std::vector<double> squared;  // |row|^2
  bool counting;

  explicit Facts(const CosineKnnArgs& args)
      : traits(traits_of(args.matrix, args.num_threads)),
        squared(squared_norms(args.matrix, args.num_threads)),
        counting(counts_suffice(args)) {}

 private:
  /// Whether sums of whole numbers, exact in any order and half as wide, give what the score needs.
  bool counts_suffice(const CosineKnnArgs& args) const {
    if (!traits.positive || !traits.whole) return false;
    if (!traits.all_ones && (args.norm == Norm::kCorated || args.min_support > 1)) return false;
    // Cauchy-Schwarz: no inner product exceeds the largest squared norm.
    const double units = static_cast<double>(traits.scale) * static_cast<double>(traits.scale);
    return largest(squared) * units < 0x1p31;
  }
};

/// Nearly exact scores decide there which pairs are worth an exact one, so float32 must hold them.
bool by_pairs(const CosineKnnArgs& args) {
  return args.norm == Norm::kFull && args.shrinkage < 1e30 && args.k <= args.matrix.rows / kPairsLeastRows &&
         args.matrix.nnz() < std::int64_t{1} << 32;
}

/// Row by row: norms, the transpose, and how inner products are added up.
class NeighbourSearch {
 public:
  NeighbourSearch(const CosineKnnArgs& args, Facts facts);

  void run(const TopkOut& out) const;

 private:
  template <class MakeSums>
  void run_with(const MakeSums& make_sums, const TopkOut& out) const;
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

NeighbourSearch::NeighbourSearch(const CosineKnnArgs& args, Facts facts)
    : args_(args),
      kernels_(kernel_table()),
      traits_(facts.traits),
      row_norms_(std::move(facts.squared)),
      counting_(facts.counting),
      postings_(args.matrix, values_for(counting_, traits_), traits_.scale) {
  for (std::int64_t number = 0; number < postings_.n_rows(); ++number) {
    squared_.push_back(row_norms_[at(postings_.row(number))]);
    norms_.push_back(std::sqrt(squared_.back()));
    screen_norms_.push_back(static_cast<float>(norms_.back()));
  }
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

CosineFacts cosine_facts(const CosineKnnArgs& args) {
  Facts facts(args);
  return {std::move(facts.squared), facts.counting, facts.traits.all_ones, facts.traits.positive, facts.traits.scale};
}

void cosine_knn(const CosineKnnArgs& args, const TopkOut& out) {
  validate(args, out);
  Facts facts(args);
  if (by_pairs(args)) return PairSearch(args, facts.traits, facts.squared, facts.counting).run(out);
  NeighbourSearch(args, std::move(facts)).run(out);
}

}  // namespace recfuse
