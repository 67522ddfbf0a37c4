#include "ops/search.hpp"

#include "isa/dispatch.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kBlockQueries = 512;
constexpr std::int64_t kMaxCandidateBytes = 32 << 20;  // of all blocks at once
constexpr std::int64_t kBlocksPerWorker = 4;           // at once, where all items stay in cache anyway
constexpr std::int64_t kMaxSharedQueries = 64;         // of a block whose items are divided

}  // namespace

SearchCut cut_search(std::int64_t first, std::int64_t last, int num_threads, int panel_queries, std::int64_t room,
                     bool one_chunk) {
  const std::int64_t n = std::max<std::int64_t>(last - first, 1), workers = plan_workers(n, num_threads);
  const std::int64_t most = std::max<std::int64_t>(1, kMaxCandidateBytes / Candidates::bytes_per_query(room));
  SearchCut cut{.by_queries = n >= workers * panel_queries, .n_blocks = 0, .blocks_at_once = 1, .blocks = {}};
  const std::int64_t n_panels = (n + panel_queries - 1) / panel_queries;
  const std::int64_t largest = std::min(cut.by_queries ? kBlockQueries : kMaxSharedQueries, most);
  const std::int64_t rounds = cut.by_queries ? workers : 1;
  cut.n_blocks = std::min(n_panels, ((n + largest - 1) / largest + rounds - 1) / rounds * rounds);
  // Evenly by queries, not by panels: of 32 queries in panels of 14, one of two workers would have 28. The larger
  // blocks come first: the first one is the size of all candidates.
  for (std::int64_t b = 0; b <= cut.n_blocks; ++b) {
    cut.blocks.push_back(std::min(last, first + (b * n + cut.n_blocks - 1) / cut.n_blocks));
  }
  const std::int64_t at_once = one_chunk ? kBlocksPerWorker * workers : most / (cut.blocks[1] - cut.blocks[0]);
  cut.blocks_at_once = std::clamp<std::int64_t>(at_once / workers * workers, workers, std::max(workers, cut.n_blocks));
  return cut;
}

std::vector<TileVisit> visit_tiles(std::span<const Tile> tiles, bool guess) {
  const std::size_t n = tiles.size();
  std::vector<TileVisit> visits;
  visits.reserve(n);
  double n_items = 0, seen = 0;
  for (const Tile& tile : tiles) n_items += static_cast<double>(tile.end - tile.begin);
  std::vector<char> visited(n, 0);
  for (std::size_t step = guess ? n / 2 : 1; visits.size() < n; step = std::max<std::size_t>(1, step / 2)) {
    for (std::size_t t = step / 2; t < n; t += step) {
      if (visited[t] != 0) continue;
      visited[t] = 1;
      visits.push_back({t, 0});
      seen += static_cast<double>(tiles[t].end - tiles[t].begin);
    }
    if (visits.size() < n) visits.back().sampled = seen / n_items;
  }
  return visits;
}

void ExactScores::consider(std::int64_t q, std::int32_t id, ExactTopk& best) const {
  if (filters_.admit(q, id)) best.push(queries_.score(kernel_table(), q, id), id);
}

void ExactScores::score_all(std::int64_t q, ExactTopk& best) const {
  const CsrView& allow = filters_.allow;
  const bool all_items = !queries_.args().has_allow_ids || filters_.allowed != nullptr;
  if (queries_.constant(q) && !allow.given() && all_items) {
    score_first(q, best);
    return score_irregular(q, best);
  }
  if (allow.given() && !queries_.args().has_allow_ids) {
    for (std::int64_t i = 0; i < allow.row_size(q); ++i) consider(q, allow.row_indices(q)[i], best);
    return;
  }
  for (const std::int32_t id : order_.ids) consider(q, id, best);
  score_irregular(q, best);
}

void ExactScores::score_first(std::int64_t q, ExactTopk& best) const {
  const FusedItems& items = queries_.items();
  std::int64_t left = queries_.args().k;
  for (std::int32_t id = 0; left > 0 && id < items.n_items(); ++id) {
    if (items.irregular(id) || !filters_.admit(q, id)) continue;
    const float score = queries_.score(kernel_table(), q, id);
    best.push(score, id);
    left -= score == score ? 1 : 0;  // not of an item that is not ranked
  }
}

void ExactScores::score_irregular(std::int64_t q, ExactTopk& best) const {
  for (const std::int32_t id : order_.irregular_ids) consider(q, id, best);
}

void ExactScores::write(std::int64_t q, ExactTopk& best, const TopkOut& out, const MatrixView<double>& parts) const {
  const std::int64_t found = best.write(q, out);
  if (parts.data == nullptr) return;
  const int n_modalities = queries_.items().n_modalities();
  for (std::int64_t i = 0; i < found; ++i) {
    queries_.score(kernel_table(), q, out.ids.row(q)[i], parts.row(q) + i * n_modalities);
  }
  std::fill(parts.row(q) + found * n_modalities, parts.row(q) + out.ids.cols * n_modalities, 0.0);
}

}  // namespace recfuse
