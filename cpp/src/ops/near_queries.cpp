#include "ops/near_queries.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "isa/dispatch.hpp"
#include "parallel_for.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kRowsPerChunk = 256;

/// Calls work(begin, end) for parts of [first, last).
template <class Work>
void for_chunks(std::int64_t first, std::int64_t last, int num_threads, Work work) {
  parallel_for((last - first + kRowsPerChunk - 1) / kRowsPerChunk, num_threads, [&](std::int64_t chunk, int) {
    const std::int64_t begin = first + chunk * kRowsPerChunk;
    work(begin, std::min(last, begin + kRowsPerChunk));
  });
}

}  // namespace

std::vector<Nearest> find_nearest(const RoundedItems& items, const FuseTopkArgs& args, std::int64_t first,
                                  std::int64_t last) {
  std::vector<Nearest> found;
  if (!items.neighbourhoods().any()) return found;
  found.resize(static_cast<std::size_t>(last));
  const auto& kernels = kernel_table();
  const auto& queries = args.queries[0];
  const auto n_centres = static_cast<int>(Neighbourhoods::n_centres());
  const auto mr = static_cast<std::size_t>(kernels.mr);
  for_chunks(first, last, args.num_threads, [&](std::int64_t chunk, std::int64_t chunk_end) {
    std::vector<float> panel(mr * static_cast<std::size_t>(queries.cols)), signs(mr), largest(2 * mr);
    std::vector<float> scores(mr * static_cast<std::size_t>(kernels.nr));
    std::vector<const float*> rows(mr);
    for (std::int64_t begin = chunk; begin < chunk_end; begin += kernels.mr) {
      const int n_rows = static_cast<int>(std::min<std::int64_t>(kernels.mr, chunk_end - begin));
      for (int r = 0; r < n_rows; ++r) {
        const double weight = *args.weights.row(args.weights.rows == 1 ? 0 : begin + r);
        rows[static_cast<std::size_t>(r)] = queries.row(begin + r);
        signs[static_cast<std::size_t>(r)] = weight < 0 ? -1.0F : 1.0F;
      }
      kernels.pack_panel(rows.data(), signs.data(), n_rows, kernels.mr, queries.cols, panel.data());
      std::fill(largest.begin(), largest.end(), -std::numeric_limits<float>::infinity());
      for (int centre = 0; centre < n_centres; centre += kernels.nr) {
        kernels.score_panel(panel.data(), items.centre_panels() + centre * queries.cols, queries.cols, scores.data());
        for (int r = 0; r < n_rows; ++r) {
          Nearest& nearest = found[static_cast<std::size_t>(begin + r)];
          float* const most = &largest[static_cast<std::size_t>(2 * r)];
          const float* const row = &scores[static_cast<std::size_t>(r * kernels.nr)];
          for (int lane = 0; lane < kernels.nr && centre + lane < n_centres; ++lane) {
            if (!(row[lane] > most[1])) continue;
            most[1] = row[lane];
            nearest.second = centre + lane;
            if (!(most[1] > most[0])) continue;
            std::swap(most[0], most[1]);
            std::swap(nearest.first, nearest.second);
          }
        }
      }
    }
  });
  return found;
}

SortedQueries::SortedQueries(const FuseTopkArgs& args, std::int64_t first, std::vector<Nearest>& nearest,
                             const TopkOut& out)
    : args_(args), rows_(nearest.size() - static_cast<std::size_t>(first)), width_(out.ids.cols) {
  const auto n = static_cast<std::int64_t>(rows_.size()), dim = args.queries[0].cols;
  std::iota(rows_.begin(), rows_.end(), first);
  std::stable_sort(rows_.begin(), rows_.end(), [&](std::int64_t a, std::int64_t b) {
    return nearest[static_cast<std::size_t>(a)] < nearest[static_cast<std::size_t>(b)];
  });
  nearest.erase(nearest.begin(), nearest.begin() + first);
  std::sort(nearest.begin(), nearest.end());
  queries_.resize(static_cast<std::size_t>(n * dim));
  for_chunks(0, n, args.num_threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::copy_n(args.queries[0].row(rows_[static_cast<std::size_t>(i)]), dim,
                  &queries_[static_cast<std::size_t>(i * dim)]);
    }
  });
  view_ = {queries_.data(), n, dim};
  args_.queries = {&view_, 1};
  ids_.resize(static_cast<std::size_t>(n * width_));
  scores_.resize(ids_.size());
}

TopkOut SortedQueries::out() {
  const auto n = static_cast<std::int64_t>(rows_.size());
  return {{ids_.data(), n, width_}, {scores_.data(), n, width_}};
}

void SortedQueries::write(const TopkOut& out) const {
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const std::size_t at = i * static_cast<std::size_t>(width_);
    std::copy_n(ids_.begin() + static_cast<std::ptrdiff_t>(at), width_, out.ids.row(rows_[i]));
    std::copy_n(scores_.begin() + static_cast<std::ptrdiff_t>(at), width_, out.scores.row(rows_[i]));
  }
}

}  // namespace recfuse
