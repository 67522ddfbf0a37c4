#include "recfuse/fuse_topk.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/float_screen.hpp"
#include "ops/near_queries.hpp"
#include "ops/rank_pairs.hpp"
#include "ops/rounded_screen.hpp"
#include "ops/screen_choice.hpp"
#include "ops/search.hpp"
#include "parallel_for.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kTrialQueries = 28;
// Up to this share of the items, those of an allow-list are gathered and scanned in float32; above, the rounded scan
// marks them. A gathered row must be fetched, which only several queries share (docs/performance.md).
constexpr double kSparseAllowList = 0.25, kSparseForFew = 0.08;

void search_in_float32(const FusedItems& items, const ScanOrder& order, const FuseTopkArgs& args, const TopkOut& out,
                       const MatrixView<double>& parts) {
  const Queries queries(items, args, order);
  const Filters filters{args.exclude, args.allow};
  const FloatScreen screen(queries, order, filters);
  Search(screen, queries, filters).run(0, queries.size(), out, parts);
}

std::int64_t search_rounded(ScreenChoice& choice, const RoundedItems& items, const FuseTopkArgs& args,
                            const Filters& filters, std::span<const Nearest> nearest, std::int64_t first,
                            std::int64_t last, const TopkOut& out, const MatrixView<double>& parts) {
  const Queries queries(items.items(), args, items.order());
  const RoundedScreen screen(queries, items, filters, nearest);
  Search search(screen, queries, filters, choice.may_guess());
  search.run(first, last, out, parts);
  choice.judge_guesses(last - first, search.n_retried());
  return search.n_scored();
}

/// Answers queries [first, last); returns how many items were scored canonically.
std::int64_t search_rounded(ScreenChoice& choice, const RoundedItems& items, const FuseTopkArgs& args,
                            const std::uint32_t* allowed, std::int64_t first, std::int64_t last, const TopkOut& out,
                            const MatrixView<double>& parts) {
  const Filters filters{args.exclude, args.allow, allowed, args.allow_ids};
  // With filters a neighbourhood may not be the query's, so nothing is known of it.
  std::vector<Nearest> nearest;
  if (!filters.given()) nearest = find_nearest(items, args, first, last);
  if (nearest.empty() || last - first == 1 || args.weights.rows > 1 || parts.data != nullptr) {
    return search_rounded(choice, items, args, filters, nearest, first, last, out, parts);
  }
  SortedQueries sorted(args, first, nearest, out);
  const std::int64_t n_scored =
      search_rounded(choice, items, sorted.args(), filters, nearest, 0, last - first, sorted.out(), parts);
  sorted.write(out);
  return n_scored;
}

/// Rising, without repeats: `ids`, or `sorted` where those are not so yet.
std::span<const std::int32_t> rising(std::span<const std::int32_t> ids, std::vector<std::int32_t>& sorted) {
  bool rises = true;
  for (std::size_t i = 1; i < ids.size(); ++i) rises &= ids[i - 1] < ids[i];
  if (rises) return ids;
  sorted.assign(ids.begin(), ids.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  return sorted;
}

/// A bit for every item of an allow-list.
std::vector<std::uint32_t> bits_of(const FuseTopkArgs& args, std::int64_t n_items) {
  std::vector<std::uint32_t> bits(args.has_allow_ids ? static_cast<std::size_t>(n_items / 32 + 1) : 0, 0);
  for (const std::int32_t id : args.allow_ids) bits[static_cast<std::size_t>(id / 32)] |= 1U << (id % 32);
  return bits;
}

}  // namespace

struct FusedIndex::State {
  FusedItems items;
  ScanOrder all;  // the scan in float32 without an allow-list, made once
  ScreenChoice screen;

  explicit State(const FusedItemsArgs& args)
      : items(args), all(items.scan_order(FloatScreen::tile_items(items.total_dim()))), screen(items) {}
};

FusedIndex::FusedIndex(const FusedItemsArgs& args) : state_(std::make_unique<State>(args)) {}
FusedIndex::~FusedIndex() = default;
FusedIndex::FusedIndex(FusedIndex&&) noexcept = default;
FusedIndex& FusedIndex::operator=(FusedIndex&&) noexcept = default;

std::int64_t FusedIndex::n_items() const { return state_->items.n_items(); }
std::int64_t FusedIndex::n_modalities() const { return state_->items.n_modalities(); }
SearchPlan FusedIndex::plan() const { return state_->screen.plan(); }

void FusedIndex::topk(const FuseTopkArgs& args, const TopkOut& out, MatrixView<double> parts) const {
  const FusedItems& items = state_->items;
  validate(args, items.args(), out, parts);
  const double sparse = args.queries[0].rows <= FloatScreen::kFewQueries ? kSparseForFew : kSparseAllowList;
  const bool few_allowed =
      args.has_allow_ids && static_cast<double>(args.allow_ids.size()) <= sparse * static_cast<double>(items.n_items());
  ScreenChoice::Handle rounded = few_allowed && args.queries[0].rows > 1 ? nullptr : state_->screen.rounded_for(args);
  if (few_allowed && rounded && rounded->rows() == nullptr) rounded = nullptr;
  if (!rounded) {
    if (!args.has_allow_ids) return search_in_float32(items, state_->all, args, out, parts);
    std::vector<std::int32_t> sorted;
    const ScanOrder order =
        items.scan_order(FloatScreen::tile_items(items.total_dim()), rising(args.allow_ids, sorted));
    return search_in_float32(items, order, args, out, parts);
  }
  const std::vector<std::uint32_t> bits = bits_of(args, items.n_items());
  const std::uint32_t* const allowed = args.has_allow_ids ? bits.data() : nullptr;
  const std::int64_t n = args.queries[0].rows;
  std::int64_t first = 0;
  if (rounded->format() == Format::kInt8 && !state_->screen.tried(args)) {
    // The first queries are answered in int8 and tell whether that is fine enough for the rest.
    first = std::min(n, kTrialQueries);
    const std::int64_t n_scored = search_rounded(state_->screen, *rounded, args, allowed, 0, first, out, parts);
    rounded = state_->screen.learn(args, first, n_scored);
  }
  if (first < n) search_rounded(state_->screen, *rounded, args, allowed, first, n, out, parts);
}

void FusedIndex::score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                             MatrixView<double> parts) const {
  const FusedItems& items = state_->items;
  validate_pairs(args, items.args(), pairs);
  const Queries queries(items, args, state_->all);
  const auto& kernels = kernel_table();
  parallel_for(pairs.rows, args.num_threads, [&](std::int64_t q, int) {
    for (std::int64_t j = pairs.indptr[q]; j < pairs.indptr[q + 1]; ++j) {
      const std::int64_t at = j - pairs.indptr[0];
      out[static_cast<std::size_t>(at)] =
          queries.score(kernels, q, pairs.indices[j], parts.data == nullptr ? nullptr : parts.row(at));
    }
  });
}

void FusedIndex::rank_pairs(const FuseTopkArgs& args, const CsrView& pairs, const PairRanks& out) const {
  validate_ranks(args, state_->items.args(), pairs, out);
  const Queries queries(state_->items, args, state_->all);
  PairRanking(queries, state_->all, pairs, out).run();
}

}  // namespace recfuse
