// The k best of exactly scored items, and which items may be among them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "recfuse/canonical.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

/// Keeps the k largest ranking keys.
class ExactTopk {
 public:
  explicit ExactTopk(std::int64_t k) : k_(static_cast<std::size_t>(k)) {}

  void push(float score, std::int32_t id) {
    const std::uint64_t key = ranking_key(score, id);
    if (key <= worst_) return;  // NaN has key 0
    keys_.push_back(key);
    if (keys_.size() >= 2 * k_ + 64) shrink();
  }
  /// A score that any further item must reach; -inf before k are known. Lags behind until tighten().
  float worst_score() const;
  void tighten() { shrink(); }
  /// The same, once as much has come since as is worth it.
  void tighten_soon() {
    if (keys_.size() >= k_ + (worst_ == 0 ? 0 : k_ / 2 + 8)) shrink();
  }
  /// In any order; after tighten() at most k.
  const std::vector<std::uint64_t>& keys() const { return keys_; }
  /// Forgets everything but k.
  void clear();
  /// Descending, at most k.
  const std::vector<std::uint64_t>& sorted();
  /// Writes ids and scores, padded to the width of `out`, as its row; returns how many were found.
  std::int64_t write(std::int64_t row, const TopkOut& out);

 private:
  void shrink();

  std::size_t k_;
  std::uint64_t worst_ = 0;  // keys up to here cannot enter
  std::vector<std::uint64_t> keys_;
};

/// Items that may be returned, per query: all but `exclude`, of `allow` only; views that are not given admit all.
struct Filters {
  CsrView exclude;
  CsrView allow;
  const std::uint32_t* allowed = nullptr;          // or null: a bit per item, for all queries
  std::span<const std::int32_t> allowed_ids = {};  // the same items

  bool given() const { return exclude.given() || chooses(); }
  bool chooses() const { return allow.given() || allowed != nullptr; }
  bool admit(std::int64_t query, std::int32_t id) const { return !excludes(query, id) && allows(query, id); }
  bool excludes(std::int64_t query, std::int32_t id) const;
  bool allows(std::int64_t query, std::int32_t id) const;
};

}  // namespace recfuse
