// Which screen an index uses: float32 until integers pay, then as fine integers as its queries need.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "ops/rounded_items.hpp"
#include "recfuse/fuse_topk.hpp"

namespace recfuse {

/// Threads may ask at the same time. Whatever is chosen, the answer is the same.
class ScreenChoice {
 public:
  using Handle = std::shared_ptr<const RoundedItems>;

  /// RECFUSE_SCREEN and RECFUSE_SCREEN_ORDER, for tests and experiments, force a screen wherever it can be had, and the
  /// order of its items; std::invalid_argument if unknown.
  explicit ScreenChoice(const FusedItems& items);

  /// The items, rounded, for a call; null where it is better off in float32.
  Handle rounded_for(const FuseTopkArgs& args);

  /// Whether lists of k have shown that int8 is fine enough.
  bool tried(const FuseTopkArgs& args) const;

  /// How many items some queries of a call scored canonically in int8; returns what the rest should use.
  Handle learn(const FuseTopkArgs& args, std::int64_t n_queries, std::int64_t n_scored);

  /// Whether thresholds may be guessed from samples of the items. Those that are read from a file are read in its
  /// order; and where the neighbours of a good item are good, samples mislead.
  bool may_guess() const { return !guesses_fail_ && may_keep(); }
  void judge_guesses(std::int64_t n_queries, std::int64_t n_retried);

  SearchPlan plan() const;

 private:
  enum class Forced { kNothing, kFloat32, kInt8, kInt16 };
  enum class Order { kSampled, kIds, kNorms };

  std::string why_float32(std::int64_t n_queries) const;
  std::string why_order() const;
  bool may_keep(int copies = 1) const;
  NormOrder order_for(const FuseTopkArgs& args) const;
  Handle round(Format format, bool keep, const FuseTopkArgs& args);
  Handle in_int16(const FuseTopkArgs& args);

  const FusedItems& items_;
  Forced forced_ = Forced::kNothing;
  Order forced_order_ = Order::kSampled;
  mutable std::mutex mutex_;
  Handle int8_;                      // kept for an index that is asked again and again: a quarter of the items' memory
  Handle int16_;                     // never kept: it is for many queries at a time, and they outweigh its rounding
  bool int8_is_too_coarse_ = false;  // for many queries at a time
  std::int64_t n_calls_ = 0, n_asked_ = 0;
  std::int64_t n_listed_ = 0;  // single queries with a list of allowed items
  double scored_per_query_ = -1;
  NormOrder by_norm_;  // as the items were last rounded
  bool sought_near_ = false;
  Neighbourhoods near_;  // until the copy that is kept has them
  std::atomic<std::int64_t> tried_k_ = 0;
  std::atomic<bool> guesses_fail_ = false;
};

}  // namespace recfuse
