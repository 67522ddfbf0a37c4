#include "recfuse/device_memory.hpp"

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <utility>

namespace recfuse {
namespace {

// Of cuda/src: tile_image, screen, candidates, rank.
constexpr std::int64_t kTileItems = 128, kSlab = 64, kFewTile = 16, kManyTile = 256;
constexpr std::int64_t kCandidateBytes = 12, kKeyBytes = 8;
constexpr std::int64_t kScoredPairBytes = 8 + 4 + 4;  // the query, the item and the score
constexpr std::int64_t kCountedPairBytes = 6 * 4;     // the item, the score and four counts
constexpr const char *kScreen = "screen", *kAll = "scoring of every item";

std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t power_of_two(std::int64_t n) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(n, 1))));
}

/// Of `n` items: their vectors, and all that is made of them.
struct ItemBytes {
  std::int64_t vectors, norms, measured, order = 0, image = 0, tile_norms = 0;

  ItemBytes(const ItemSizes& of, std::int64_t n)
      : vectors(4 * n * of.copied_dim), norms((8 * of.n_modalities + 4) * n), measured((4 * of.n_modalities + 4) * n) {
    const std::int64_t tiles = ceil_of(n, kTileItems) + of.n_groups - 1;
    if (of.dim > SearchLimits::kMostDim) return;
    order = 4 * tiles * (kTileItems + 1);
    image = 2 * tiles * kTileItems * ceil_of(of.image_dim, kSlab) * kSlab;
    tile_norms = 16 * tiles * of.n_modalities;
  }
  std::int64_t made() const { return norms + measured + order + image + tile_norms; }
  std::int64_t resident() const { return vectors + made(); }
  std::int64_t streamed() const { return 2 * vectors + made(); }  // the next block is on its way meanwhile
};

struct QueryBytes {
  std::int64_t vectors, weights, lists, image, bounds, candidates, filters;

  QueryBytes(const ItemSizes& of, const SearchLimits& limits, const QuerySizes& queries)
      : vectors(4 * of.dim),
        weights(16 * of.n_modalities + 8),
        lists(8 * queries.k),
        image(2 * ceil_of(of.image_dim, kSlab) * kSlab),
        bounds(16 * of.n_modalities + 16),
        candidates(candidates_per_query(limits, queries.k) * kCandidateBytes),
        filters(queries.filter_bytes) {}
  std::int64_t all() const { return vectors + weights + lists + image + bounds + candidates + filters; }
  /// Where pairs are scored.
  std::int64_t scored() const { return vectors + weights; }
};

std::int64_t pairs_bytes(const ItemPlan& plan, const SearchLimits& limits) {
  return std::min(limits.pairs_bytes, plan.search_bytes / 4);
}

/// The largest blocks that leave so much to a search.
ItemPlan blocks_for(const ItemSizes& sizes, std::int64_t free_bytes, std::int64_t for_search) {
  const std::int64_t per_tile = ItemBytes(sizes, kTileItems * 2).streamed() - ItemBytes(sizes, kTileItems).streamed();
  const std::int64_t room = free_bytes - for_search - ItemBytes(sizes, 0).streamed();
  const std::int64_t items = std::clamp<std::int64_t>(room / per_tile * kTileItems, 0, sizes.n_items);
  return {true, items, ceil_of(sizes.n_items, std::max<std::int64_t>(items, 1)), 4 * items * sizes.dim, for_search};
}

/// For as long as the index lives, or in blocks during its phases.
void add_items(const ItemBytes& items, const ItemPlan& plan, std::initializer_list<const char*> phases,
               std::vector<DeviceBuffer>& buffers) {
  const auto add = [&](const char* phase, std::int64_t times) {
    buffers.push_back({plan.streamed ? "items, two blocks of them" : "items", times * items.vectors, phase});
    buffers.push_back({"norms and groups of the items", items.norms, phase});
    buffers.push_back({"order of the scan", items.order, phase});
    buffers.push_back({"items in float16", items.image, phase});
    buffers.push_back({"norms of tiles", items.tile_norms, phase});
  };
  if (plan.streamed) {
    for (const char* const phase : phases) add(phase, 2);
    return;
  }
  add("kept", 1);
  buffers.push_back({"ranges of the items, being measured", items.measured, "build"});
}

}  // namespace

ItemPlan plan_items(const ItemSizes& sizes, const SearchLimits& limits, std::int64_t free_bytes) {
  const std::int64_t for_search = std::min(limits.search_bytes, free_bytes / 4);
  if (ItemBytes(sizes, sizes.n_items).resident() > free_bytes - for_search) {
    const ItemPlan plan = blocks_for(sizes, free_bytes, for_search);
    if (plan.block_items >= limits.least_block && plan.n_blocks > 1) return plan;
  }
  return {false, sizes.n_items, 1, 4 * sizes.n_items * sizes.dim, kUnlimitedBytes};
}

ItemPlan plan_search(const ItemSizes& sizes, const SearchLimits& limits, const ItemPlan& of_index,
                     std::int64_t free_bytes, const QuerySizes& queries) {
  if (!of_index.streamed) return of_index;
  const std::int64_t for_one = QueryBytes(sizes, limits, queries).all();
  const std::int64_t for_search = std::max(std::min(limits.search_bytes, free_bytes / 4), for_one + for_one / 4);
  const ItemPlan now = blocks_for(sizes, free_bytes, for_search);
  return now.block_items > 0 && now.block_items < of_index.block_items ? now : of_index;
}

std::int64_t candidates_per_query(const SearchLimits& limits, std::int64_t k) {
  return std::max(limits.capacity, power_of_two(8 * std::min(k, SearchLimits::kMostK)));
}

std::int64_t queries_at_once(const ItemSizes& sizes, const ItemPlan& plan, const SearchLimits& limits,
                             const QuerySizes& queries) {
  const QueryBytes query(sizes, limits, queries);
  // Streamed, half of what is left is for the queries, a quarter for keys.
  const std::int64_t most = std::min(limits.batch_bytes / query.candidates, plan.search_bytes / 2 / query.all());
  return std::clamp<std::int64_t>(most, 1, std::max<std::int64_t>(queries.n_queries, 1));
}

std::int64_t scored_at_once(const ItemPlan& plan, const SearchLimits& limits, std::int64_t size) {
  return std::max<std::int64_t>(1, std::min(limits.keys_bytes, plan.search_bytes / 4) / (size * kKeyBytes));
}

std::vector<PairRun> runs_of_pairs(const ItemSizes& sizes, const ItemPlan& plan, const SearchLimits& limits,
                                   const CsrView& pairs, std::int64_t term_bytes) {
  const std::int64_t of_pair = kScoredPairBytes + term_bytes, of_query = QueryBytes(sizes, limits, {}).scored();
  const std::int64_t most = pairs_bytes(plan, limits);
  std::vector<PairRun> runs;
  std::int64_t bytes = most;  // no run has begun
  for (std::int64_t q = 0; q < pairs.rows; ++q) {
    std::int64_t at = pairs.indptr[q] - pairs.indptr[0];
    const std::int64_t end = at + pairs.row_size(q);
    while (at < end) {
      if (bytes + of_query + of_pair > most) {
        runs.push_back({q, q, at, at});
        bytes = 0;
      }
      const std::int64_t n = std::clamp<std::int64_t>((most - bytes - of_query) / of_pair, 1, end - at);
      runs.back().last_query = q + 1;
      runs.back().last = at += n;
      bytes += n * of_pair;
    }
    bytes += of_query;  // those without pairs are copied, too
  }
  return runs;
}

std::vector<PairRun> runs_of_queries(const ItemPlan& plan, const SearchLimits& limits, const CsrView& pairs,
                                     const CsrView& exclude, std::int64_t most_queries) {
  const std::int64_t most = pairs_bytes(plan, limits);
  std::vector<PairRun> runs;
  std::int64_t bytes = 0;
  for (std::int64_t q = 0; q < pairs.rows; ++q) {
    const std::int64_t own = pairs.row_size(q) * kCountedPairBytes + (exclude.given() ? exclude.row_size(q) * 4 : 0);
    if (runs.empty() || q - runs.back().first_query == most_queries || bytes + own > most) {
      const std::int64_t at = pairs.indptr[q] - pairs.indptr[0];
      runs.push_back({q, q, at, at});
      bytes = 0;
    }
    bytes += own;
    runs.back().last_query = q + 1;
    runs.back().last += pairs.row_size(q);
  }
  return runs;
}

DevicePlan plan_device_memory(const ItemSizes& sizes, const SearchLimits& limits, std::int64_t free_bytes,
                              const QuerySizes& queries) {
  const ItemPlan plan = plan_search(sizes, limits, plan_items(sizes, limits, free_bytes), free_bytes, queries);
  const ItemBytes items(sizes, plan.block_items);
  const QueryBytes query(sizes, limits, queries);
  const std::int64_t batch = queries_at_once(sizes, plan, limits, queries), k = queries.k;
  const std::int64_t size = power_of_two(plan.block_items + (plan.streamed ? k : 0));
  std::vector<DeviceBuffer> buffers;
  add_items(items, plan, {kScreen, kAll}, buffers);
  for (const char* const phase : {kScreen, kAll}) {
    buffers.push_back({"queries", query.vectors * batch, phase});
    buffers.push_back({"weights, norms and factors of the queries", query.weights * batch, phase});
    buffers.push_back({"ids and scores", query.lists * batch, phase});
  }
  if (sizes.dim <= SearchLimits::kMostDim && k <= SearchLimits::kMostK) {
    const std::int64_t tile = batch <= SearchLimits::kFewQueries ? kFewTile : kManyTile;
    // Small requests keep theirs for the next one.
    const bool kept = !plan.streamed && queries.n_queries <= SearchLimits::kFewQueries;
    for (const char* const phase : {kScreen, kAll}) {
      if (phase == kAll && !kept) continue;
      buffers.push_back({"queries in float16", query.image * ceil_of(batch, tile) * tile, phase});
      buffers.push_back({"bounds and thresholds", query.bounds * batch, phase});
      buffers.push_back({"candidates", query.candidates * batch, phase});
    }
  }
  // Of queries that are not screened, or that have more candidates than there is room for.
  const std::int64_t at_once = std::min(batch, scored_at_once(plan, limits, size));
  buffers.push_back({"keys", at_once * size * kKeyBytes, kAll});
  std::erase_if(buffers, [](const auto& buffer) { return buffer.n_bytes == 0; });
  return {plan, batch, at_once, std::move(buffers)};
}

DevicePlan plan_rank_pairs(const ItemSizes& sizes, const SearchLimits& limits, std::int64_t free_bytes,
                           const PairSizes& pairs) {
  const std::int64_t n = std::max<std::int64_t>(pairs.n_queries, 1);
  const std::int64_t of_query = (pairs.n_pairs * kCountedPairBytes + pairs.n_excluded * 4) / n;
  const QuerySizes queries{n};
  const ItemPlan plan = plan_search(sizes, limits, plan_items(sizes, limits, free_bytes), free_bytes, queries);
  const ItemBytes items(sizes, plan.block_items);
  const QueryBytes query(sizes, limits, queries);
  const std::int64_t most = pairs_bytes(plan, limits);
  const std::int64_t scored_bytes = pairs.n_pairs * kScoredPairBytes / n + query.scored();
  const std::int64_t scored = std::clamp<std::int64_t>(most / std::max<std::int64_t>(scored_bytes, 1), 1, n);
  const std::int64_t fitting = most / std::max<std::int64_t>(of_query, 1);
  const std::int64_t counted = std::clamp<std::int64_t>(fitting, 1, queries_at_once(sizes, plan, limits, queries));
  const char *const kScores = "scores of the pairs", *const kCounts = "counts";
  std::vector<DeviceBuffer> buffers;
  add_items(items, plan, {kScores, kCounts}, buffers);
  for (const auto& [phase, batch] : {std::pair{kScores, scored}, {kCounts, counted}}) {
    buffers.push_back({"queries", query.vectors * batch, phase});
    buffers.push_back({"weights, norms and factors of the queries", query.weights * batch, phase});
  }
  // One query may have more than fit: its pairs come one part after the other.
  buffers.push_back(
      {"pairs", std::min(pairs.n_pairs * scored / n * kScoredPairBytes, std::max(most, kScoredPairBytes)), kScores});
  buffers.push_back({"pairs and their counts", pairs.n_pairs * counted / n * kCountedPairBytes, kCounts});
  buffers.push_back(
      {"excluded items", pairs.n_excluded * counted / n * 4 + (pairs.n_excluded > 0 ? 8 * counted : 0), kCounts});
  buffers.push_back({"where the pairs of a query are, ranked items", 12 * counted, kCounts});
  if (sizes.dim <= SearchLimits::kMostDim) {
    const std::int64_t tile = counted <= SearchLimits::kFewQueries ? kFewTile : kManyTile;
    buffers.push_back({"queries in float16", query.image * ceil_of(counted, tile) * tile, kCounts});
    buffers.push_back({"bounds and thresholds", query.bounds * counted, kCounts});
    buffers.push_back({"candidates", query.candidates * counted, kCounts});
  }
  std::erase_if(buffers, [](const auto& buffer) { return buffer.n_bytes == 0; });
  return {plan, counted, scored, std::move(buffers)};
}

}  // namespace recfuse
