#include "recfuse/nearest_rows.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>

#include "isa/dispatch.hpp"
#include "ops/exact_topk.hpp"
#include "parallel_for.hpp"
#include "recfuse/canonical.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

using kernels::kNearQueries;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::int64_t kQueries = 64;             // of a chunk
constexpr std::int64_t kFloatsOfItems = 1 << 16;  // of a chunk: they stay in the second cache for all of its queries
constexpr std::int64_t kTogether = 64;            // items that are screened at once

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// What the queries of a chunk have found among its items.
struct Piece {
  std::vector<std::int64_t> counts;  // per query
  std::vector<std::int32_t> ids;
  std::vector<float> values;
};

/// Pairs whose float32 value, off by at most what the kernels say, leaves open whether they are in range; NaN does.
class OpenPairs {
 public:
  explicit OpenPairs(const RowsInRangeArgs& args)
      : limit_(args.limit), relative_(static_cast<double>(args.items.cols + 8) * 0x1p-23) {
    absolute_ = static_cast<double>(args.items.cols) * 0x1p-125;
    if (args.by == Nearness::kProduct) {
      query_norms_ = norms(args.queries, args.num_threads);
      item_norms_ = norms(args.items, args.num_threads);
      return;
    }
    // No distance is below 0. Where float32 overflows and this does not, the distance is larger, too.
    const double least = limit_ * (1 + relative_) + absolute_;
    farthest_ = limit_ <= 0 ? -kInfinity : std::nextafter(static_cast<float>(least), kInfinity);
  }

  /// Positions of those among n items from `first` on; returns how many.
  std::int64_t find(std::int64_t query, std::int64_t first, const float* values, std::int64_t n,
                    std::int32_t* open) const {
    std::int64_t found = 0;
    if (item_norms_.empty()) {
      for (std::int64_t i = 0; i < n; ++i) {
        open[found] = static_cast<std::int32_t>(i);
        found += values[i] > farthest_ ? 0 : 1;
      }
      return found;
    }
    const double norm = query_norms_[at(query)];
    for (std::int64_t i = 0; i < n; ++i) {
      const double size = norm * item_norms_[at(first + i)];
      const double bound = size > 0x1p125 ? kInfinity : size * relative_ + absolute_;
      open[found] = static_cast<std::int32_t>(i);
      found += values[i] + bound <= limit_ ? 0 : 1;
    }
    return found;
  }

 private:
  static std::vector<double> norms(const MatrixView<const float>& rows, int num_threads) {
    constexpr std::int64_t kRows = 1024;
    std::vector<double> found(at(rows.rows));
    parallel_for((rows.rows + kRows - 1) / kRows, num_threads, [&](std::int64_t chunk, int) {
      for (std::int64_t i = chunk * kRows; i < std::min(rows.rows, (chunk + 1) * kRows); ++i) {
        found[at(i)] = std::sqrt(kernel_table().canonical_dot(rows.row(i), rows.row(i), rows.cols)) * (1 + 0x1p-40);
      }
    });
    return found;
  }

  double limit_;
  double relative_;
  double absolute_;
  float farthest_ = 0;  // a distance in float32 that may yet be in range
  std::vector<double> query_norms_;
  std::vector<double> item_norms_;
};

/// Queries and items in chunks, so that neither many of the ones nor of the others are needed to keep threads busy.
class RangeSearch {
 public:
  explicit RangeSearch(const RowsInRangeArgs& args)
      : args_(args),
        kernels_(kernel_table()),
        open_(args),
        n_items_(
            std::clamp<std::int64_t>(kFloatsOfItems / std::max<std::int64_t>(1, args.items.cols), kTogether, 4096)),
        n_across_((args.items.rows + n_items_ - 1) / n_items_),
        pieces_(at((args.queries.rows + kQueries - 1) / kQueries * n_across_)) {}

  RowsInRange run() {
    parallel_for(static_cast<std::int64_t>(pieces_.size()), args_.num_threads,
                 [&](std::int64_t chunk, int) { search(chunk); });
    RowsInRange result;
    result.indptr.assign(at(args_.queries.rows) + 1, 0);
    for (std::size_t chunk = 0; chunk < pieces_.size(); ++chunk) {
      for (std::size_t i = 0; i < pieces_[chunk].counts.size(); ++i) {
        result.indptr[at(first_query(static_cast<std::int64_t>(chunk))) + i + 1] += pieces_[chunk].counts[i];
      }
    }
    for (std::size_t q = 1; q < result.indptr.size(); ++q) result.indptr[q] += result.indptr[q - 1];
    result.ids.resize(at(result.indptr.back()));
    result.values.resize(result.ids.size());
    // Blocks of queries side by side; a query's pieces one after the other.
    const std::int64_t n_blocks = (args_.queries.rows + kQueries - 1) / kQueries;
    parallel_for(n_blocks, args_.num_threads, [&](std::int64_t block, int) {
      std::vector<std::int64_t> next(result.indptr.begin() + block * kQueries,
                                     result.indptr.begin() + std::min(args_.queries.rows, (block + 1) * kQueries));
      for (std::int64_t across = 0; across < n_across_; ++across) {
        Piece piece = std::move(pieces_[at(block * n_across_ + across)]);
        std::int64_t from = 0;
        for (std::size_t i = 0; i < next.size(); ++i) {
          std::copy_n(piece.ids.begin() + from, piece.counts[i], result.ids.begin() + next[i]);
          std::copy_n(piece.values.begin() + from, piece.counts[i], result.values.begin() + next[i]);
          next[i] += piece.counts[i];
          from += piece.counts[i];
        }
      }
    });
    return result;
  }

 private:
  std::int64_t first_query(std::int64_t chunk) const { return chunk / n_across_ * kQueries; }

  void search(std::int64_t chunk) {
    Piece& piece = pieces_[at(chunk)];
    const std::int64_t first = chunk % n_across_ * n_items_, last = std::min(args_.items.rows, first + n_items_);
    const std::int64_t end = std::min(args_.queries.rows, first_query(chunk) + kQueries);
    for (std::int64_t q = first_query(chunk); q < end; q += kNearQueries) {
      const auto n = static_cast<int>(std::min<std::int64_t>(kNearQueries, end - q));
      std::array<Piece, kNearQueries> own;
      for (std::int64_t item = first; item < last; item += kTogether) {
        screen(q, n, item, std::min(kTogether, last - item), own);
      }
      for (int i = 0; i < n; ++i) {
        piece.counts.push_back(static_cast<std::int64_t>(own[at(i)].ids.size()));
        piece.ids.insert(piece.ids.end(), own[at(i)].ids.begin(), own[at(i)].ids.end());
        piece.values.insert(piece.values.end(), own[at(i)].values.begin(), own[at(i)].values.end());
      }
    }
  }

  void screen(std::int64_t q, int n_queries, std::int64_t item, std::int64_t n, std::array<Piece, kNearQueries>& own) {
    std::array<const float*, kNearQueries> queries;
    std::array<const float*, kTogether> items;
    std::array<float, kNearQueries * kTogether> values;
    std::array<std::int32_t, kTogether> open;
    const std::int64_t dim = args_.items.cols;
    for (int i = 0; i < kNearQueries; ++i) queries[at(i)] = args_.queries.row(q + std::min(i, n_queries - 1));
    for (std::int64_t i = 0; i < n; ++i) items[at(i)] = args_.items.row(item + i);
    const bool distance = args_.by == Nearness::kDistance;
    (distance ? kernels_.distance_block : kernels_.product_block)(queries.data(), items.data(), n, dim, values.data());
    for (int i = 0; i < n_queries; ++i) {
      const std::int64_t found = open_.find(q + i, item, values.data() + i * n, n, open.data());
      for (std::int64_t j = 0; j < found; ++j) {
        const float* const row = items[at(open[at(j)])];
        const double exact = distance ? kernels_.squared_distance(queries[at(i)], row, dim)
                                      : kernels_.canonical_dot(queries[at(i)], row, dim);
        const auto value = static_cast<float>(exact);
        if (!(distance ? value < args_.limit : value > args_.limit)) continue;
        own[at(i)].ids.push_back(static_cast<std::int32_t>(item) + open[at(j)]);
        own[at(i)].values.push_back(value);
      }
    }
  }

  const RowsInRangeArgs& args_;
  const kernels::KernelTable& kernels_;
  OpenPairs open_;
  std::int64_t n_items_;   // of a chunk
  std::int64_t n_across_;  // chunks for all items
  std::vector<Piece> pieces_;
};

}  // namespace

void nearest_candidates(const NearestCandidatesArgs& args, const TopkOut& out) {
  validate(args, out);
  constexpr std::int64_t kRows = 16;
  constexpr std::int64_t kAhead = 4;
  const auto& kernels = kernel_table();
  const std::int64_t n_chunks = (args.queries.rows + kRows - 1) / kRows, n = args.candidates.cols;
  std::vector<std::unique_ptr<ExactTopk>> bests(at(plan_workers(n_chunks, args.num_threads)));
  parallel_for(n_chunks, args.num_threads, [&](std::int64_t chunk, int worker) {
    auto& best = bests[at(worker)];
    if (!best) best = std::make_unique<ExactTopk>(out.ids.cols);
    for (std::int64_t q = chunk * kRows; q < std::min(args.queries.rows, (chunk + 1) * kRows); ++q) {
      const std::int32_t* const ids = args.candidates.row(q);
      best->clear();
      for (std::int64_t j = 0; j < n; ++j) {
        if (j + kAhead < n && ids[j + kAhead] >= 0) {
          const float* const next = args.items.row(ids[j + kAhead]);
          for (std::int64_t i = 0; i < args.items.cols; i += 16) __builtin_prefetch(next + i);
        }
        if (ids[j] < 0) continue;
        const auto distance =
            static_cast<float>(kernels.squared_distance(args.queries.row(q), args.items.row(ids[j]), args.items.cols));
        if (distance < kInfinity) best->push(-distance, ids[j]);
      }
      best->write(q, out);
      for (std::int64_t j = 0; j < out.ids.cols; ++j) out.scores.row(q)[j] = 0 - out.scores.row(q)[j];
    }
  });
}

RowsInRange rows_in_range(const RowsInRangeArgs& args) {
  validate(args);
  return RangeSearch(args).run();
}

}  // namespace recfuse
