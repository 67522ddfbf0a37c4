#include "ops/search.hpp"

#include "isa/dispatch.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kMaxQueriesPerBlock = 2048;
constexpr std::int64_t kTilesPerWorker = 8;            // with fewer, workers that divide the items wait for one another
constexpr std::int64_t kMaxCandidateBytes = 64 << 20;  // per worker

}  // namespace

SearchCut cut_search(std::int64_t n_queries, int num_threads, std::int64_t n_tiles, int panel_queries,
                     std::int64_t room) {
  const std::int64_t n = std::max<std::int64_t>(n_queries, 1);
  const std::int64_t most =
      std::clamp<std::int64_t>(kMaxCandidateBytes / Candidates::bytes_per_query(room), 1, kMaxQueriesPerBlock);
  const std::int64_t workers = plan_workers(n, num_threads);
  const bool own = n >= workers * panel_queries && n_tiles < kTilesPerWorker * workers;
  if (!own) return {std::min(most, n), false};
  const std::int64_t rounds = (n + most * workers - 1) / (most * workers);
  // Whole panels of queries, evenly over the workers.
  const std::int64_t even = (n + rounds * workers - 1) / (rounds * workers);
  return {std::min(most, (even + panel_queries - 1) / panel_queries * panel_queries), true};
}

void ExactScores::consider(std::int64_t q, std::int32_t id, ExactTopk& best) const {
  if (filters_.admit(q, id)) best.push(queries_.score(kernel_table(), q, id), id);
}

void ExactScores::score_all(std::int64_t q, ExactTopk& best) const {
  const CsrView& allow = filters_.allow;
  if (allow.given() && !queries_.args().has_allow_ids) {
    for (std::int64_t i = 0; i < allow.row_size(q); ++i) consider(q, allow.row_indices(q)[i], best);
    return;
  }
  for (const std::int32_t id : order_.ids) consider(q, id, best);
  score_irregular(q, best);
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
