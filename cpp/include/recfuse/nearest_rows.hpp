// Squared distances: the nearest of given rows, and all rows within a range.
#pragma once

#include <cstdint>
#include <vector>

#include "recfuse/views.hpp"

namespace recfuse {

struct NearestCandidatesArgs {
  MatrixView<const float> queries;            // (n_queries, dim)
  MatrixView<const float> items;              // (n_items, dim)
  MatrixView<const std::int32_t> candidates;  // (n_queries, n): ids of items, each once, -1 for none
  int num_threads = 0;
};

/// The k candidates at the least squared distance, k the width of `out`: distance ascending, then id ascending, padded
/// with -1 and inf. A distance is squared_distance() of canonical.hpp, rounded once; one that is not below infinity is
/// not in a list. The result depends on neither num_threads nor the instruction set.
/// Throws std::invalid_argument, std::out_of_range.
void nearest_candidates(const NearestCandidatesArgs& args, const TopkOut& out);

enum class Nearness {
  kDistance,  // squared, below the limit
  kProduct,   // above the limit
};

struct RowsInRangeArgs {
  MatrixView<const float> queries;  // (n_queries, dim)
  MatrixView<const float> items;    // (n_items, dim)
  Nearness by = Nearness::kDistance;
  float limit = 0;  // left out itself
  int num_threads = 0;
};

/// A row per query: the items in range in ascending order, and their distances or products.
struct RowsInRange {
  std::vector<std::int64_t> indptr;
  std::vector<std::int32_t> ids;
  std::vector<float> values;
};

/// Scores are canonical (canonical.hpp), rounded once, and then compared. Takes the time of all pairs in float32, and
/// that of those in range in float64. Results and errors as above.
RowsInRange rows_in_range(const RowsInRangeArgs& args);

/// The checks of these.
void validate(const NearestCandidatesArgs& args, const TopkOut& out);
void validate(const RowsInRangeArgs& args);

}  // namespace recfuse
