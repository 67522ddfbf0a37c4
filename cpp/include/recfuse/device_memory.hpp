// What a search takes of a device's memory, and how items and queries are cut to fit: the one place that knows. The
// search itself cuts by it, and `plan_memory` tells it, with or without a device at hand.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "recfuse/views.hpp"

namespace recfuse {

/// How much of a device a search takes at a time. Tests shrink it, so that everything overflows.
struct SearchLimits {
  std::int64_t capacity = 4096;                 // candidates of a query, at least
  std::int64_t first_items = 2048;              // scanned before there is a threshold
  std::int64_t growth = 4;                      // of what has been scanned, from pass to pass
  std::int64_t batch_bytes = 256 << 20;         // of candidates
  std::int64_t keys_bytes = 256 << 20;          // of the keys of queries that are not screened
  std::int64_t search_bytes = 768 << 20;        // that items leave to searches, but for a quarter of what is free
  std::int64_t launch_bytes = 20 << 20;         // that memory reads while a kernel starts
  std::int64_t least_block = 8192;              // items: fewer are not worth the launches of a block
  std::int64_t pairs_bytes = 256 << 20;         // of given pairs, their queries and what these exclude
  static constexpr std::int64_t kMostK = 1024;  // of a screened query
  static constexpr std::int64_t kMostIrregular = 1024;
  static constexpr std::int64_t kMostDim = 1 << 15;
  static constexpr std::int64_t kFewQueries = 64;
};

constexpr std::int64_t kUnlimitedBytes = std::numeric_limits<std::int64_t>::max();

struct DeviceBuffer {
  std::string name;
  std::int64_t n_bytes = 0;
  std::string phase;  // as in recfuse.memory.Buffer
};

/// Columns of a modality in float16: the matrix units multiply 16 at a time.
constexpr std::int64_t image_columns(std::int64_t cols) { return (cols + 15) / 16 * 16; }

/// What of the items decides how much they take.
struct ItemSizes {
  std::int64_t n_items = 0;
  std::int64_t dim = 0;  // of all modalities together
  std::int64_t n_modalities = 0;
  std::int64_t image_dim = 0;   // of their float16, in which every modality has whole groups of columns
  std::int64_t copied_dim = 0;  // of the modalities that are not on the device already
  std::int64_t n_groups = 1;    // of items that have the same modalities
};

struct QuerySizes {
  std::int64_t n_queries = 1;
  std::int64_t k = 1;
  std::int64_t filter_bytes = 0;  // of a query, on average
};

/// How the items lie on a device: all of them for as long as the index lives, or a block at a time during a search.
struct ItemPlan {
  bool streamed = false;
  std::int64_t block_items = 0;                 // at most; n_items where they are resident
  std::int64_t n_blocks = 1;                    // at least 1
  std::int64_t block_bytes = 0;                 // of the vectors of a block
  std::int64_t search_bytes = kUnlimitedBytes;  // that are left to a search
};

/// Resident where that leaves searches their share of what is free; else in the largest blocks for which it does; and
/// resident, so that the device says what it lacks, where not even the smallest block would fit.
ItemPlan plan_items(const ItemSizes& sizes, const SearchLimits& limits, std::int64_t free_bytes);

/// Of a search for the k best when so much is free: the plan of the index, or smaller blocks where that is less than it
/// was, or where a query needs more.
ItemPlan plan_search(const ItemSizes& sizes, const SearchLimits& limits, const ItemPlan& of_index,
                     std::int64_t free_bytes, const QuerySizes& queries);

/// Candidates of a query.
std::int64_t candidates_per_query(const SearchLimits& limits, std::int64_t k);
/// Queries that are searched together.
std::int64_t queries_at_once(const ItemSizes& sizes, const ItemPlan& plan, const SearchLimits& limits,
                             const QuerySizes& queries);
/// Given pairs, in the order of their queries, some at a time: the longest runs that take no more than so many bytes,
/// but at least one pair, or one query.
struct PairRun {
  std::int64_t first_query, last_query;  // the last one is beyond them
  std::int64_t first, last;              // pairs: some of these queries may have others in another run
};
std::vector<PairRun> runs_of_pairs(const ItemSizes& sizes, const ItemPlan& plan, const SearchLimits& limits,
                                   const CsrView& pairs, std::int64_t term_bytes);
/// The same of whole queries, at most so many: for counting.
std::vector<PairRun> runs_of_queries(const ItemPlan& plan, const SearchLimits& limits, const CsrView& pairs,
                                     const CsrView& exclude, std::int64_t most_queries);

/// Queries of those whose every item is scored together, with `size` keys each.
std::int64_t scored_at_once(const ItemPlan& plan, const SearchLimits& limits, std::int64_t size);

/// Every buffer of an index and of a search with queries that come from the host, and how both are cut.
struct DevicePlan {
  ItemPlan items;
  std::int64_t queries = 0;  // at a time
  std::int64_t scored = 0;   // of those whose every item is scored
  std::vector<DeviceBuffer> buffers;
};
DevicePlan plan_device_memory(const ItemSizes& sizes, const SearchLimits& limits, std::int64_t free_bytes,
                              const QuerySizes& queries);

/// The same of an index that ranks given pairs, all queries having about as many.
struct PairSizes {
  std::int64_t n_queries = 1, n_pairs = 0, n_excluded = 0;
};
DevicePlan plan_rank_pairs(const ItemSizes& sizes, const SearchLimits& limits, std::int64_t free_bytes,
                           const PairSizes& pairs);

}  // namespace recfuse
