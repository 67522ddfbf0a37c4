#include "ops/screen_choice.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "isa/dispatch.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kManyQueries = 256;   // in one call: rounding tiles on the way pays
constexpr std::int64_t kQueriesToKeep = 16;  // in several calls: keeping them pays
constexpr std::int64_t kLeastItems = 1024;   // below, nothing is worth preparing
// Scoring an item canonically takes as long as multiplying so many rows in int8, or so many single dimensions
// (docs/performance.md).
constexpr double kRowsPerScore = 85, kDimsPerScore = 23'000;
// Where the longest items come first, most queries score the same ones, which are in a cache then; so do those of one
// neighbourhood.
constexpr double kCachedShare = 1.0 / 3;

// A retry costs as much as a guess saves so many queries.
constexpr std::int64_t kQueriesPerRetry = 16;

/// Whether the scores that int8 could not avoid take longer than a scan in int16 would.
bool too_coarse(const FusedItems& items, std::int64_t k, bool cached, double scored_per_query) {
  const auto dim = static_cast<double>(items.total_dim());
  const double avoidable = scored_per_query - 1.1 * static_cast<double>(k);
  const double cost = (kRowsPerScore * dim + kDimsPerScore) * (cached ? kCachedShare : 1.0);
  return avoidable * cost > static_cast<double>(items.n_items()) * dim;
}

std::string asked_for(const char* variable) {
  const char* const name = std::getenv(variable);
  return name == nullptr || *name == '\0' ? "auto" : name;
}

}  // namespace

ScreenChoice::ScreenChoice(const FusedItems& items) : items_(items) {
  const std::string asked = asked_for("RECFUSE_SCREEN"), order = asked_for("RECFUSE_SCREEN_ORDER");
  if (asked == "float32") {
    forced_ = Forced::kFloat32;
  } else if (asked == "int8") {
    forced_ = Forced::kInt8;
  } else if (asked == "int16") {
    forced_ = Forced::kInt16;
  } else if (asked != "auto") {
    throw std::invalid_argument("RECFUSE_SCREEN must be auto, float32, int8 or int16; got '" + asked + "'");
  }
  if (order == "ids") {
    forced_order_ = Order::kIds;
  } else if (order == "norms") {
    forced_order_ = Order::kNorms;
  } else if (order != "auto") {
    throw std::invalid_argument("RECFUSE_SCREEN_ORDER must be auto, ids or norms; got '" + order + "'");
  }
}

/// Empty where linear fusions of so many queries are screened in integers.
std::string ScreenChoice::why_float32(std::int64_t n_queries) const {
  if (kernel_table().screen_int8 == nullptr) return "the instruction set " + active_isa() + " has no integer screen";
  if (!RoundedItems::fits(items_)) return "sums of so many dimensions exceed 32 bits";
  if (forced_ == Forced::kFloat32) return "RECFUSE_SCREEN asks for it";
  if (forced_ != Forced::kNothing) return "";
  if (items_.n_items() < kLeastItems)
    return "rounding fewer than " + std::to_string(kLeastItems) + " items saves nothing";
  if (n_queries >= kManyQueries || (n_calls_ > 1 && n_asked_ >= kQueriesToKeep && may_keep())) return "";
  return "rounding pays for " + std::to_string(kManyQueries) + " queries in one call, or " +
         std::to_string(kQueriesToKeep) + " in several";
}

/// Of a copy: an int8 per element, rows in whole words.
bool ScreenChoice::may_keep(int copies) const {
  const std::int64_t row_bytes = copies * (items_.total_dim() + 3 * items_.n_modalities());
  return items_.n_items() <= items_.args().most_kept_bytes / row_bytes;
}

/// Items that are read from a file are read in its order.
NormOrder ScreenChoice::order_for(const FuseTopkArgs& args) const {
  if (forced_order_ == Order::kIds || !may_keep()) return {};
  NormOrder order = sample_norms(items_, args);
  if (forced_order_ == Order::kNorms) order.pays = true;
  return order;
}

ScreenChoice::Handle ScreenChoice::round(Format format, bool keep, const FuseTopkArgs& args) {
  by_norm_ = order_for(args);
  return std::make_shared<RoundedItems>(items_, format, keep, by_norm_, keep ? near_ : Neighbourhoods());
}

ScreenChoice::Handle ScreenChoice::in_int16(const FuseTopkArgs& args) {
  if (!int16_) int16_ = round(Format::kInt16, false, args);
  return int16_;
}

ScreenChoice::Handle ScreenChoice::rounded_for(const FuseTopkArgs& args) {
  const std::int64_t n_queries = args.queries[0].rows;
  const std::lock_guard lock(mutex_);
  ++n_calls_;
  n_asked_ += n_queries;
  if (!is_linear(args.fusion) || !why_float32(n_queries).empty()) return nullptr;
  // An index that is asked once keeps nothing: its tiles are rounded as the scan reaches them.
  const bool keep = n_calls_ > 1 && may_keep();
  if (keep && !sought_near_ && forced_ != Forced::kInt16 && forced_order_ == Order::kSampled) {
    sought_near_ = true;
    near_ = find_neighbourhoods(items_);
    // With them less is left open: what was found out without them counts for nothing.
    if (near_.any()) int8_is_too_coarse_ = false;
    if (near_.any()) tried_k_ = 0;
  }
  if (forced_ == Forced::kInt16 || (int8_is_too_coarse_ && n_queries >= kManyQueries)) return in_int16(args);
  if (int8_ && int8_->limit() != kernel_table().item_limit) int8_ = nullptr;  // of another instruction set
  if (!int8_ || (keep && !int8_->kept())) int8_ = round(Format::kInt8, keep, args);
  n_listed_ += n_queries == 1 && args.has_allow_ids ? 1 : 0;
  if (n_listed_ >= kQueriesToKeep && int8_->kept() && items_.n_modalities() == 1 && may_keep(2)) int8_->keep_rows();
  return int8_;
}

bool ScreenChoice::tried(const FuseTopkArgs& args) const {
  return forced_ != Forced::kNothing || args.queries[0].rows < kManyQueries || args.k <= tried_k_;
}

ScreenChoice::Handle ScreenChoice::learn(const FuseTopkArgs& args, std::int64_t n_queries, std::int64_t n_scored) {
  const std::lock_guard lock(mutex_);
  tried_k_ = std::max<std::int64_t>(tried_k_, args.k);
  scored_per_query_ = static_cast<double>(n_scored) / static_cast<double>(n_queries);
  int8_is_too_coarse_ =
      int8_is_too_coarse_ || too_coarse(items_, args.k, by_norm_.pays || near_.any(), scored_per_query_);
  return int8_is_too_coarse_ ? in_int16(args) : int8_;
}

void ScreenChoice::judge_guesses(std::int64_t n_queries, std::int64_t n_retried) {
  if (n_retried * kQueriesPerRetry > n_queries) guesses_fail_ = true;
}

std::string ScreenChoice::why_order() const {
  if (forced_order_ != Order::kSampled) return "RECFUSE_SCREEN_ORDER asks for it";
  if (items_.cosine()) return "the cosine knows no norms";
  if (!may_keep()) return "items that are too large to be kept are read as they lie";
  if (!int8_ && !int16_) return "not tried yet";
  if (by_norm_.skipped < 0) return "the lists are too long for a sample";
  return by_norm_.pays ? "norms keep most items from the lists" : "norms keep too few items from the lists";
}

SearchPlan ScreenChoice::plan() const {
  const std::lock_guard lock(mutex_);
  SearchPlan plan;
  plan.screen = "float32";
  plan.reason = why_float32(kManyQueries);
  plan.scored_per_query = scored_per_query_;
  for (int m = 0; m < items_.n_modalities(); ++m) {
    plan.item_bytes += 4 * items_.matrix(m).rows * items_.matrix(m).cols;
  }
  if (int8_ && int8_->kept()) plan.rounded_bytes = int8_->bytes();
  if (!plan.reason.empty()) return plan;
  const bool int16 = forced_ == Forced::kInt16 || int8_is_too_coarse_;
  plan.screen = int16 ? "int16" : "int8";
  const auto& rounded = int16 ? int16_ : int8_;
  if (rounded) plan.unit_classes = rounded->n_classes();
  if (rounded && rounded->ordered_by_norm()) plan.order = "norms";
  if (rounded && rounded->neighbourhoods().any()) plan.order = "neighbourhoods";
  plan.order_reason = why_order();
  plan.skipped_by_norm = by_norm_.skipped;
  if (forced_ != Forced::kNothing) {
    plan.reason = "RECFUSE_SCREEN asks for it";
  } else if (int16) {
    plan.reason = "int8 left so many items to score that a scan in int16 is faster";
  } else {
    plan.reason = scored_per_query_ < 0 ? "not tried yet" : "it leaves few items to score";
  }
  if (!may_keep()) plan.reason += "; a copy of the items would take too much of the memory available";
  return plan;
}

}  // namespace recfuse
