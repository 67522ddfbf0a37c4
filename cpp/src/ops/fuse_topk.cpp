#include "recfuse/fuse_topk.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/float_screen.hpp"
#include "ops/rounded_items.hpp"
#include "ops/rounded_screen.hpp"
#include "ops/search.hpp"
#include "parallel_for.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kQueriesToRound = 64;  // from here on, all calls together, rounding the items has paid
constexpr std::int64_t kLeastItems = 1024;    // below, nothing is worth preparing
constexpr std::int64_t kTrialQueries = 28;
// Scoring an item canonically takes as long as multiplying a row by so many int8 rows, and a miss of every cache
// (docs/performance.md).
constexpr double kRowsPerScore = 85, kWordsPerMiss = 23'000;
// Of the items: below, an allow-list is gathered and scanned in float32; above, the rounded scan asks it of candidates.
constexpr double kSparseAllowList = 0.25;

void search_in_float32(const FusedItems& items, const ScanOrder& order, const FuseTopkArgs& args, const TopkOut& out,
                       const MatrixView<double>& parts) {
  const Queries queries(items, args, order);
  const FloatScreen screen(queries, order);
  const Filters filters{args.exclude, args.allow};
  Search(screen, queries, filters).run(0, queries.size(), out, parts);
}

/// Answers queries [first, last); returns how many items were scored canonically.
std::int64_t search_rounded(const RoundedItems& items, const FuseTopkArgs& args, const char* allowed,
                            std::int64_t first, std::int64_t last, const TopkOut& out,
                            const MatrixView<double>& parts) {
  const Queries queries(items.items(), args, items.order());
  const RoundedScreen screen(queries, items);
  const Filters filters{args.exclude, args.allow, allowed};
  Search search(screen, queries, filters);
  search.run(first, last, out, parts);
  return search.n_scored();
}

/// Whether the scores that int8 could not avoid took longer than a scan in int16 would have.
bool int8_is_too_coarse(const FusedItems& items, std::int64_t k, std::int64_t n_queries, std::int64_t n_scored) {
  const auto dim = static_cast<double>(items.total_dim());
  const double avoidable =
      static_cast<double>(n_scored) / static_cast<double>(n_queries) - 1.1 * static_cast<double>(k);
  return avoidable * (kRowsPerScore * dim + kWordsPerMiss) > static_cast<double>(items.n_items()) * dim;
}

/// RECFUSE_SCREEN, for tests and experiments: one screen wherever it can be had. The answer is the same.
enum class ScreenChoice { kAuto, kFloat32, kInt8, kInt16 };

ScreenChoice chosen_screen() {
  const char* const name = std::getenv("RECFUSE_SCREEN");
  const std::string_view chosen = name == nullptr ? "" : name;
  if (chosen.empty() || chosen == "auto") return ScreenChoice::kAuto;
  if (chosen == "float32") return ScreenChoice::kFloat32;
  if (chosen == "int8") return ScreenChoice::kInt8;
  if (chosen == "int16") return ScreenChoice::kInt16;
  throw std::invalid_argument("RECFUSE_SCREEN must be auto, float32, int8 or int16; got '" + std::string(chosen) + "'");
}

/// The items, rounded once it pays, as finely as the queries so far have needed.
class RoundedCache {
 public:
  explicit RoundedCache(const FusedItems& items) : items_(items) {}

  using Handle = std::shared_ptr<const RoundedItems>;

  /// Null where a call is better off in float32.
  Handle get(const FuseTopkArgs& args) {
    if (kernel_table().screen_int8 == nullptr || !is_linear(args.fusion)) return nullptr;
    if (choice_ == ScreenChoice::kFloat32 || !RoundedItems::fits(items_)) return nullptr;
    const std::lock_guard lock(mutex_);
    n_asked_ += args.queries[0].rows;
    const bool pays = items_.n_items() >= kLeastItems && n_asked_ >= kQueriesToRound;
    if (!rounded_ && (pays || choice_ != ScreenChoice::kAuto)) {
      rounded_ =
          std::make_shared<RoundedItems>(items_, choice_ == ScreenChoice::kInt16 ? Format::kInt16 : Format::kInt8);
    }
    return rounded_;
  }

  /// Whether lists of this length have been tried in int8.
  bool tried(std::int64_t k) const { return choice_ != ScreenChoice::kAuto || k <= tried_k_; }

  /// What a search in int8 took; returns what the next one should use.
  Handle note(const FuseTopkArgs& args, std::int64_t n_queries, std::int64_t n_scored) {
    const std::lock_guard lock(mutex_);
    tried_k_ = std::max<std::int64_t>(tried_k_, args.k);
    if (rounded_->format() == Format::kInt8 && int8_is_too_coarse(items_, args.k, n_queries, n_scored)) {
      rounded_ = std::make_shared<RoundedItems>(items_, Format::kInt16);
    }
    return rounded_;
  }

 private:
  const FusedItems& items_;
  const ScreenChoice choice_ = chosen_screen();
  std::mutex mutex_;
  Handle rounded_;
  std::int64_t n_asked_ = 0;
  std::atomic<std::int64_t> tried_k_ = 0;
};

}  // namespace

struct FusedIndex::State {
  FusedItems items;
  ScanOrder all;  // the scan in float32 without an allow-list, made once
  RoundedCache rounded;

  explicit State(const FusedItemsArgs& args)
      : items(args), all(items.scan_order(FloatScreen::tile_items(items.total_dim()), nullptr)), rounded(items) {}
};

FusedIndex::FusedIndex(const FusedItemsArgs& args) : state_(std::make_unique<State>(args)) {}
FusedIndex::~FusedIndex() = default;
FusedIndex::FusedIndex(FusedIndex&&) noexcept = default;
FusedIndex& FusedIndex::operator=(FusedIndex&&) noexcept = default;

std::int64_t FusedIndex::n_items() const { return state_->items.n_items(); }
std::int64_t FusedIndex::n_modalities() const { return state_->items.n_modalities(); }

void FusedIndex::topk(const FuseTopkArgs& args, const TopkOut& out, MatrixView<double> parts) const {
  const FusedItems& items = state_->items;
  validate(args, items.args(), out, parts);
  std::vector<char> allowed(static_cast<std::size_t>(args.has_allow_ids ? items.n_items() : 0), 0);
  for (const std::int32_t id : args.allow_ids) allowed[static_cast<std::size_t>(id)] = 1;
  if (args.has_allow_ids &&
      static_cast<double>(args.allow_ids.size()) <= kSparseAllowList * static_cast<double>(items.n_items())) {
    const ScanOrder order = items.scan_order(FloatScreen::tile_items(items.total_dim()), &allowed);
    return search_in_float32(items, order, args, out, parts);
  }
  RoundedCache::Handle rounded = state_->rounded.get(args);
  if (!rounded) {
    if (!args.has_allow_ids) return search_in_float32(items, state_->all, args, out, parts);
    const ScanOrder order = items.scan_order(FloatScreen::tile_items(items.total_dim()), &allowed);
    return search_in_float32(items, order, args, out, parts);
  }
  const char* const flags = args.has_allow_ids ? allowed.data() : nullptr;
  const std::int64_t n = args.queries[0].rows;
  std::int64_t first = 0;
  if (rounded->format() == Format::kInt8 && !state_->rounded.tried(args.k) && n > 0) {
    // The first queries are answered in int8 and tell whether that is fine enough for the rest.
    first = std::min(n, kTrialQueries);
    const std::int64_t n_scored = search_rounded(*rounded, args, flags, 0, first, out, parts);
    rounded = state_->rounded.note(args, first, n_scored);
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
