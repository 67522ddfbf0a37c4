// Queries by the neighbourhoods that they are nearest to: those of one look at the same items first.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "ops/rounded_items.hpp"
#include "recfuse/fuse_topk.hpp"

namespace recfuse {

/// The neighbourhoods that a query is nearest to.
struct Nearest {
  int first = 0, second = 0;
  auto operator<=>(const Nearest&) const = default;
};

/// Of queries [first, last) of a call, from place `first` on; empty where items have no neighbourhoods.
std::vector<Nearest> find_nearest(const RoundedItems& items, const FuseTopkArgs& args, std::int64_t first,
                                  std::int64_t last);

/// Some queries of a call without filters, sorted by neighbourhood, and room for their answers.
class SortedQueries {
 public:
  /// Those from `first` on; `nearest` is sorted with them. One row of weights is for all of them.
  SortedQueries(const FuseTopkArgs& args, std::int64_t first, std::vector<Nearest>& nearest, const TopkOut& out);
  SortedQueries(const SortedQueries&) = delete;
  SortedQueries& operator=(const SortedQueries&) = delete;

  const FuseTopkArgs& args() const { return args_; }
  TopkOut out();
  /// Answers where the call wants them.
  void write(const TopkOut& out) const;

 private:
  FuseTopkArgs args_;
  std::vector<std::int64_t> rows_;  // of the call
  std::vector<float> queries_;
  MatrixView<const float> view_;  // of them
  std::int64_t width_;            // of an answer
  std::vector<std::int32_t> ids_;
  std::vector<float> scores_;
};

}  // namespace recfuse
