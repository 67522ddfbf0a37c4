#include "recfuse/fuse_topk.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/float_screen.hpp"
#include "ops/rounded_screen.hpp"
#include "ops/screen_choice.hpp"
#include "ops/search.hpp"
#include "parallel_for.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kTrialQueries = 28;
// Of the items: below, an allow-list is gathered and scanned in float32; above, the rounded scan asks it of candidates.
constexpr double kSparseAllowList = 0.25;

void search_in_float32(const FusedItems& items, const ScanOrder& order, const FuseTopkArgs& args, const TopkOut& out,
                       const MatrixView<double>& parts) {
  const Queries queries(items, args, order);
  const Filters filters{args.exclude, args.allow};
  const FloatScreen screen(queries, order, filters);
  Search(screen, queries, filters).run(0, queries.size(), out, parts);
}

/// Answers queries [first, last); returns how many items were scored canonically.
std::int64_t search_rounded(const RoundedItems& items, const FuseTopkArgs& args, const char* allowed,
                            std::int64_t first, std::int64_t last, const TopkOut& out,
                            const MatrixView<double>& parts) {
  const Queries queries(items.items(), args, items.order());
  const Filters filters{args.exclude, args.allow, allowed};
  const RoundedScreen screen(queries, items, filters);
  Search search(screen, queries, filters);
  search.run(first, last, out, parts);
  return search.n_scored();
}

}  // namespace

struct FusedIndex::State {
  FusedItems items;
  ScanOrder all;  // the scan in float32 without an allow-list, made once
  ScreenChoice screen;

  explicit State(const FusedItemsArgs& args)
      : items(args), all(items.scan_order(FloatScreen::tile_items(items.total_dim()), nullptr)), screen(items) {}
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
  std::vector<std::int32_t> allowed(args.allow_ids.begin(), args.allow_ids.end());
  if (!std::is_sorted(allowed.begin(), allowed.end())) std::sort(allowed.begin(), allowed.end());
  allowed.erase(std::unique(allowed.begin(), allowed.end()), allowed.end());
  const bool few_allowed = args.has_allow_ids && static_cast<double>(allowed.size()) <=
                                                     kSparseAllowList * static_cast<double>(items.n_items());
  ScreenChoice::Handle rounded = few_allowed ? nullptr : state_->screen.rounded_for(args);
  if (!rounded) {
    if (!args.has_allow_ids) return search_in_float32(items, state_->all, args, out, parts);
    const ScanOrder order = items.scan_order(FloatScreen::tile_items(items.total_dim()), &allowed);
    return search_in_float32(items, order, args, out, parts);
  }
  std::vector<char> is_allowed(static_cast<std::size_t>(args.has_allow_ids ? items.n_items() : 0), 0);
  for (const std::int32_t id : allowed) is_allowed[static_cast<std::size_t>(id)] = 1;
  const char* const flags = args.has_allow_ids ? is_allowed.data() : nullptr;
  const std::int64_t n = args.queries[0].rows;
  std::int64_t first = 0;
  if (rounded->format() == Format::kInt8 && !state_->screen.tried(args)) {
    // The first queries are answered in int8 and tell whether that is fine enough for the rest.
    first = std::min(n, kTrialQueries);
    const std::int64_t n_scored = search_rounded(*rounded, args, flags, 0, first, out, parts);
    rounded = state_->screen.learn(args, first, n_scored);
  }
  if (first < n) search_rounded(*rounded, args, flags, first, n, out, parts);
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

}  // namespace recfuse
