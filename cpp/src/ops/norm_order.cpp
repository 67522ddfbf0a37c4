#include "ops/norm_order.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <numeric>

#include "isa/dispatch.hpp"
#include "ops/query_block.hpp"
#include "parallel_for.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kSampledItems = 4096, kSampledQueries = 16;
constexpr std::int64_t kLongest = 1024, kLongestPerK = 16;  // items that are scored
constexpr double kLeastSkew = 1.5;  // of the longest to the median: vectors that point everywhere reach 1.3
constexpr double kLeastSkipped = 0.1;
constexpr int kSizeBits = 17;  // the lowest ones of a float32, that sorting does not look at

/// Every so many-th query of a call, without filters.
struct SampledQueries {
  std::vector<MatrixView<const float>> queries;
  FuseTopkArgs args;

  explicit SampledQueries(const FuseTopkArgs& all) : args(all) {
    const std::int64_t step = (all.queries[0].rows + kSampledQueries - 1) / kSampledQueries;
    const auto every = [&](const auto& matrix) {
      auto sampled = matrix;
      sampled.rows = (matrix.rows + step - 1) / step;
      sampled.stride *= step;
      return sampled;
    };
    for (const auto& matrix : all.queries) queries.push_back(every(matrix));
    args.queries = queries;
    if (all.weights.rows > 1) args.weights = every(all.weights);
    args.exclude = args.allow = {};
    args.has_allow_ids = false;
  }
};

ScanOrder every_few_items(const FusedItems& items) {
  ScanOrder order;
  const std::int64_t step = (items.n_items() + kSampledItems - 1) / kSampledItems;
  order.tile_norms.assign(static_cast<std::size_t>(items.n_modalities()), 0.0F);
  for (std::int64_t i = 0; i < items.n_items(); i += step) {
    const auto id = static_cast<std::int32_t>(i);
    if (items.irregular(id)) continue;
    order.ids.push_back(id);
    for (int m = 0; m < items.n_modalities(); ++m) {
      float& largest = order.tile_norms[static_cast<std::size_t>(m)];
      largest = std::max(largest, items.screen_norm(id, m));
    }
  }
  return order;
}

/// Share of the sampled items that norms keep from the k-th score of a query, which is at least `reached`.
double share_below(const FusedItems& items, const Queries& queries, const ScanOrder& sample, std::int64_t q,
                   float reached) {
  std::int64_t below = 0;
  for (const std::int32_t id : sample.ids) {
    double most = 0;
    for (int m = 0; m < items.n_modalities(); ++m) most += queries.screen_norm(q, m) * items.screen_norm(id, m);
    below += queries.factor(q, items.group_of(id)) * most < reached;
  }
  return static_cast<double>(below) / static_cast<double>(sample.ids.size());
}

}  // namespace

NormOrder sample_norms(const FusedItems& items, const FuseTopkArgs& args) {
  NormOrder order;
  if (items.cosine() || args.queries[0].rows == 0) return order;  // norms are 1
  const ScanOrder sample = every_few_items(items);
  const SampledQueries sampled(args);
  const Queries queries(items, sampled.args, sample);
  const auto n_modalities = static_cast<std::size_t>(items.n_modalities());
  order.shares.assign(n_modalities, 0.0);
  for (std::int64_t q = 0; q < queries.size(); ++q) {
    for (std::size_t m = 0; m < n_modalities && queries.scanned(q); ++m) {
      order.shares[m] += queries.screen_norm(q, static_cast<int>(m)) / static_cast<double>(queries.size());
    }
  }
  const std::int64_t n = items.n_items(), longest = std::min(std::max(kLongest, kLongestPerK * args.k), n / 4);
  const auto n_sampled = static_cast<std::int64_t>(sample.ids.size());
  if (2 * args.k > longest || n_sampled < 16) return order;

  std::vector<double> sizes;
  for (const std::int32_t id : sample.ids) sizes.push_back(order.size(items, id));
  std::sort(sizes.begin(), sizes.end());
  const double median = sizes[static_cast<std::size_t>(n_sampled / 2)];
  const double cut = sizes[static_cast<std::size_t>(n_sampled - 1 - longest * (n_sampled - 1) / n)];
  order.skipped = 0;
  if (!(cut > kLeastSkew * median)) return order;
  std::vector<std::int32_t> ids;
  for (std::int32_t id = 0; id < n && static_cast<std::int64_t>(ids.size()) < 4 * longest; ++id) {
    if (order.size(items, id) >= cut && !items.irregular(id)) ids.push_back(id);
  }
  if (static_cast<std::int64_t>(ids.size()) < args.k) return order;

  std::vector<double> skipped(static_cast<std::size_t>(queries.size()), 0.0);
  parallel_for(queries.size(), args.num_threads, [&](std::int64_t q, int) {
    if (!queries.scanned(q)) return;
    std::vector<float> scores;
    for (const std::int32_t id : ids) {
      const float score = queries.score(kernel_table(), q, id);
      scores.push_back(score == score ? score : -std::numeric_limits<float>::infinity());
    }
    const auto kth = scores.begin() + static_cast<std::ptrdiff_t>(args.k - 1);
    std::nth_element(scores.begin(), kth, scores.end(), std::greater<>());
    skipped[static_cast<std::size_t>(q)] = share_below(items, queries, sample, q, *kth);
  });
  order.skipped = std::accumulate(skipped.begin(), skipped.end(), 0.0) / static_cast<double>(skipped.size());
  order.pays = order.skipped >= kLeastSkipped;
  return order;
}

void sort_by_size(const FusedItems& items, const NormOrder& order, std::span<std::int32_t> ids) {
  // Bits of floats that are not negative are ordered as the floats are; from the largest down.
  const auto key = [&](std::int32_t id) {
    const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(order.size(items, id)));
    return static_cast<std::size_t>((0x7f800000U - bits) >> kSizeBits);
  };
  std::vector<std::uint32_t> ends((0x7f800000U >> kSizeBits) + 2, 0);
  for (const std::int32_t id : ids) ++ends[key(id) + 1];
  std::partial_sum(ends.begin(), ends.end(), ends.begin());
  std::vector<std::int32_t> sorted(ids.size());
  for (const std::int32_t id : ids) sorted[ends[key(id)]++] = id;
  std::copy(sorted.begin(), sorted.end(), ids.begin());
}

}  // namespace recfuse
