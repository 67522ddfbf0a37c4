// What sparse similarity takes of a device's memory, with or without a device at hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "recfuse/cosine_knn.hpp"
#include "recfuse/device_memory.hpp"

namespace recfuse {

/// How sums are kept on a device.
struct StripKind {
  std::int64_t most_ids;     // of a strip
  std::int64_t sum_bytes;    // of an id, in shared memory
  std::int64_t value_bytes;  // of an entry of a list
  std::int64_t most_places;  // of a table, each with four bytes more: 128 KiB with its sums, at most
};

// 64 KiB of sums: two blocks, with their candidates, share a multiprocessor.
constexpr StripKind kCounted{16'384, 4, 2, 16'384};
constexpr StripKind kFixedPoint{16'384, 4, 4, 16'384};      // real weights, screened
constexpr StripKind kFixedWithSupport{8'192, 8, 4, 8'192};  // the same, and how many terms there are
constexpr StripKind kFloat64{8'192, 12, 4, 8'192};
constexpr StripKind kTwoFloat64{4'096, 20, 4, 4'096};
constexpr StripKind kThreeFloat64{4'096, 28, 4, 4'096};

/// Sums in strips are cleared and looked at, all of them, for every row: ids of which a row meets few have theirs in a
/// table. That costs more per addition, and 1/8 of the ids is where the two meet (docs/performance.md); and where there
/// are fewer ids than these, looking at all takes no time that would pay for lists of another kind.
constexpr std::int64_t kLeastTableIds = 1 << 16, kIdsPerAddition = 8;

/// Additions that a table has room for: a fourth of its places stays free, so that ids are found soon.
constexpr std::int64_t table_room(std::int64_t n_places) { return n_places - n_places / 4; }
/// By the row's work alone, so the same on every device that has room for such tables; the lists are the same anyway.
constexpr bool has_table(std::int64_t additions, std::int64_t n_ids, std::int64_t most_places,
                         std::int64_t ids_per_addition = kIdsPerAddition) {
  return additions <= table_room(most_places) && additions * ids_per_addition <= n_ids;
}

/// When a row's additions of counts are left to the matrix units. All is counted in additions, so the choice goes by
/// the matrix alone (docs/performance.md has the reckoning).
struct DenseCosts {
  std::int64_t ids_per_entry = 14;           // a column is dense if at least one of so many rows has it
  std::int64_t products_per_addition = 200;  // that take as long
  std::int64_t products_per_sum = 440;       // as long as writing and reading a sum of products
  std::int64_t least_gain = 200'000'000;     // additions, in all: less would not pay for the launches
  std::int64_t most_bytes = 1 << 30;         // of the dense matrix

  /// Whether to look: no matrix has more additions than this.
  constexpr bool may_pay(std::int64_t n_rows, std::int64_t n_entries) const {
    return n_rows > 0 && n_entries > 0 && n_entries >= least_gain / n_rows;
  }
  /// The columns that so many entries and bytes allow.
  std::int64_t most_columns(std::int64_t n_rows, std::int64_t n_columns, std::int64_t n_entries) const;
  /// Dense columns, longest first, whose values fit a byte; none if no row can gain by them.
  std::vector<std::int32_t> columns(std::int64_t n_rows, const std::vector<std::int32_t>& sizes,
                                    const std::vector<std::uint32_t>& largest) const;
  /// In additions, of a row's products with all rows.
  std::int64_t of_row(std::int64_t n_rows, std::int64_t n_dense) const;
};

constexpr std::int64_t kDenseTile = 128;  // rows, and bytes of each: multiplied at a time
constexpr std::int64_t dense_tiles(std::int64_t n) { return (n + kDenseTile - 1) / kDenseTile; }
constexpr std::int64_t dense_depth(std::int64_t n_dense) { return dense_tiles(n_dense) * kDenseTile; }
constexpr std::int64_t kDenseSumsBytes = 32 << 20;  // of rows at a time: they stay in the second cache

/// Rows whose sums are there at a time.
constexpr std::int64_t dense_rows(std::int64_t n_rows, std::int64_t sums_bytes = kDenseSumsBytes) {
  const std::int64_t most = sums_bytes / (4 * dense_tiles(n_rows) * kDenseTile) / kDenseTile * kDenseTile;
  return most < kDenseTile ? kDenseTile : most;
}

enum class SparseValues { kOnes, kWhole, kPositive, kAny };

struct CosineKnnSizes {
  std::int64_t n_rows = 0, n_columns = 0, n_entries = 0;
  std::int64_t k = 1;
  SparseValues values = SparseValues::kPositive;
  Norm norm = Norm::kFull;
  std::int64_t min_support = 1;
};

struct NeighbourTopkSizes {
  std::int64_t n_queries = 0, n_rows = 0, n_items = 0;
  std::int64_t query_entries = 0, entries = 0, filter_bytes = 0;
  std::int64_t k = 1;
  bool normalise = false;
};

/// Of a device: how many rows blocks may share, and how wide strips are, depends on it.
struct DeviceShape {
  std::int64_t multiprocessors = 132, shared_bytes = 227 << 10;  // of a block
};

/// To the byte, but for rows that blocks share, that have tables or products of dense columns, and candidates that are
/// too many: no size tells these, so they are counted as if there were as many as there can be. What is in a phase
/// "kept" is there in all others.
std::vector<DeviceBuffer> plan_cosine_knn(const CosineKnnSizes& sizes, const DeviceShape& device = {});
std::vector<DeviceBuffer> plan_neighbour_topk(const NeighbourTopkSizes& sizes, const DeviceShape& device = {});

/// The most that is there at a time.
std::int64_t peak_bytes(const std::vector<DeviceBuffer>& buffers);

}  // namespace recfuse
