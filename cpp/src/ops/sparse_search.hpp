// Sparse rows times a sparse matrix, in parallel: the k best ids of every row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/table.hpp"
#include "ops/exact_topk.hpp"
#include "ops/sparse_sums.hpp"
#include "parallel_for.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

// Looking at an id by its list costs as much as so many in a row, or half as many where its sum is taken.
constexpr std::int64_t kEntryCost = 8;

/// A little below the score that `best` asks for, -inf before it has k. No rounding on the way to a score, in float32
/// or float64, makes up for 2^-20; and no score so small that the difference would round away is held back.
inline double screen_threshold(const ExactTopk& best) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double score = best.worst_score();
  if (score == kInfinity) return std::numeric_limits<float>::max();  // where rounding to infinity begins
  return score == -kInfinity ? score : score - std::abs(score) * 0x1p-20 - 0x1p-126;
}

/// What looking rows up in lists costs, row by row: their entries, and the ids that are looked at.
inline std::vector<std::int64_t> lookup_work(const CsrView& rows, const std::int64_t* list_ends, std::int64_t n_ids) {
  std::vector<std::int64_t> work(static_cast<std::size_t>(rows.rows));
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    std::int64_t& sum = work[static_cast<std::size_t>(row)];
    for (std::int64_t e = rows.indptr[row]; e < rows.indptr[row + 1]; ++e) {
      sum += list_ends[rows.indices[e] + 1] - list_ends[rows.indices[e]];
    }
    sum += std::min(sum, n_ids / kEntryCost);
  }
  return work;
}

/// Rows by descending work, cut into runs of about equal work: what the threads share out. Depends on the work alone.
struct WorkPlan {
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> ends;  // of the runs, in `rows`

  explicit WorkPlan(std::span<const std::int64_t> work) : rows(work.size()) {
    constexpr std::int64_t kRuns = 1024;
    constexpr std::int64_t kLeastWork = 1 << 16;  // some 50 microseconds
    std::iota(rows.begin(), rows.end(), 0);
    std::stable_sort(rows.begin(), rows.end(), [&](std::int64_t a, std::int64_t b) {
      return work[static_cast<std::size_t>(a)] > work[static_cast<std::size_t>(b)];
    });
    const std::int64_t share = std::max(kLeastWork, std::accumulate(work.begin(), work.end(), std::int64_t{0}) / kRuns);
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      sum += work[static_cast<std::size_t>(rows[i])];
      if (sum < share && i + 1 < rows.size()) continue;
      ends.push_back(static_cast<std::int64_t>(i) + 1);
      sum = 0;
    }
  }

  std::int64_t n_runs() const { return static_cast<std::int64_t>(ends.size()); }
  std::span<const std::int64_t> run(std::int64_t i) const {
    const std::int64_t first = i == 0 ? 0 : ends[static_cast<std::size_t>(i) - 1];
    return std::span(rows).subspan(static_cast<std::size_t>(first),
                                   static_cast<std::size_t>(ends[static_cast<std::size_t>(i)] - first));
  }
};

/// Moves the ids of a list whose sums reach the limit to `hits`; returns how many. Sums that can be taken are 0 then,
/// but those of the hits.
template <class Sums, class Id>
std::size_t find_hits(Sums& sums, const Id* ids, std::int64_t n, const DotLimit& limit, bool take, std::int32_t* hits) {
  if constexpr (requires { sums.can_take(); }) {
    if (take) return sums.take(ids, n, limit, hits);
  }
  std::size_t found = 0;
  for (std::int64_t e = 0; e < n; ++e) {  // without a branch, which would be guessed wrong
    hits[found] = ids[e];
    found += sums.reaches(ids[e], limit) ? 1 : 0;
  }
  return found;
}

/// Visits every id whose sum reaches limit(), which may rise in between, and clears the sums. They are those of
/// `columns`; where those are short against all ids, only the ids on them are looked at.
template <class Sums, class Limit, class Visit>
void sweep(Sums& sums, const kernels::PostingLists& lists, std::span<const std::int32_t> columns, std::int64_t n_ids,
           std::vector<std::int32_t>& hits, const Limit& limit, const Visit& visit) {
  constexpr std::int64_t kBlock = 1024, kLeastBlock = 64;
  hits.resize(kBlock);
  std::int64_t entries = 0;
  for (const std::int32_t c : columns) entries += lists.indptr[c + 1] - lists.indptr[c];
  bool take = false;
  if constexpr (requires { sums.can_take(); }) take = sums.can_take();
  if (entries < n_ids / (take ? kEntryCost / 2 : kEntryCost)) {
    const auto id_at = [&](std::int64_t e) { return lists.ids == nullptr ? lists.narrow_ids[e] : lists.ids[e]; };
    for (const std::int32_t c : columns) {
      const std::int64_t end = lists.indptr[c + 1];
      for (std::int64_t e = lists.indptr[c]; e < end; e += kLeastBlock) {
        const std::int64_t n = std::min(kLeastBlock, end - e);
        const std::size_t found = lists.ids == nullptr
                                      ? find_hits(sums, lists.narrow_ids + e, n, limit(), take, hits.data())
                                      : find_hits(sums, lists.ids + e, n, limit(), take, hits.data());
        for (std::size_t i = 0; i < found; ++i) {
          visit(hits[i]);
          sums.clear(hits[i], 1);  // so an id that other lists hold, too, is visited once
        }
      }
    }
    for (const std::int32_t c : columns) {
      for (std::int64_t e = lists.indptr[c]; !take && e < lists.indptr[c + 1]; ++e) sums.clear(id_at(e), 1);
    }
    return;
  }
  // Short blocks first: before k are found, all pass.
  for (std::int64_t first = 0, n = kLeastBlock; first < n_ids; first += n, n = std::min(2 * n, kBlock)) {
    n = std::min(n, n_ids - first);
    const std::int64_t found = sums.screen(first, n, limit(), hits.data());
    for (std::int64_t i = 0; i < found; ++i)
      visit(static_cast<std::int32_t>(first) + hits[static_cast<std::size_t>(i)]);
    sums.clear(first, n);
  }
}

struct SparseSearch {
  const CsrView& rows;
  const kernels::PostingLists& lists;  // one for every column of rows
  std::int64_t n_ids;
  int num_threads;

  /// make_sums() gives a worker its sums; limit(row, best) is what a sum must reach now; visit(sums, row, id, best)
  /// scores one that does. Every row gets all of `out.ids.cols` slots.
  template <class MakeSums, class Limit, class Visit>
  void run(const MakeSums& make_sums, const Limit& limit, const Visit& visit, const TopkOut& out) const {
    struct Worker {
      decltype(make_sums()) sums;
      ExactTopk best;
      std::vector<std::int32_t> hits;
    };
    const WorkPlan plan(lookup_work(rows, lists.indptr, n_ids));
    std::vector<std::unique_ptr<Worker>> workers(static_cast<std::size_t>(plan_workers(plan.n_runs(), num_threads)));
    parallel_for(plan.n_runs(), num_threads, [&](std::int64_t run, int worker) {
      auto& own = workers[static_cast<std::size_t>(worker)];
      if (!own) own.reset(new Worker{make_sums(), ExactTopk(out.ids.cols), {}});
      for (const std::int64_t row : plan.run(run)) {
        const std::span columns(rows.row_indices(row), static_cast<std::size_t>(rows.row_size(row)));
        own->sums.add(columns.data(), rows.row_values(row), rows.row_size(row));
        own->best.clear();
        sweep(
            own->sums, lists, columns, n_ids, own->hits,
            [&] {
              own->best.tighten_soon();
              return limit(row, own->best);
            },
            [&](std::int32_t id) { visit(own->sums, row, id, own->best); });
        own->best.write(row, out);
      }
    });
  }
};

}  // namespace recfuse
