// Lists of admitted items: which of them a call has at all, and how they are best looked at.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "items.cuh"
#include "recfuse/device_memory.hpp"
#include "recfuse/fuse_topk.hpp"
#include "tile_image.cuh"

namespace recfuse::cuda {

/// What the lists of a call admit.
struct Admitted {
  bool given = false;             // false: everything, and nothing below is known
  std::vector<std::int32_t> ids;  // admitted for any query; ascending
  std::int64_t pairs = 0;         // of queries and items on their lists
  std::int64_t longest = 0;       // list, as a kernel gets it: those of queries name all items

  /// Of the items in `ids` (or of all), the share that is admitted for the average query.
  double share(std::int64_t n_queries, std::int64_t n_items) const {
    return given ? std::max<double>(1, static_cast<double>(pairs)) /
                       static_cast<double>(std::max<std::int64_t>(1, n_queries * n_items))
                 : 1.0;
  }
};

/// Of the items in `range`.
inline Admitted admitted_by(const FuseTopkArgs& args, const ItemRange& range) {
  Admitted admitted;
  const std::int64_t n_queries = args.queries[0].rows;
  if (args.allow.given()) {
    admitted.given = true;
    std::vector<bool> seen(static_cast<std::size_t>(range.size()), false);
    const std::int32_t* const all = args.allow.row_indices(0);
    for (std::int64_t i = 0; i < args.allow.nnz(); ++i) {
      if (!range.has(all[i])) continue;
      ++admitted.pairs;
      seen[static_cast<std::size_t>(all[i] - range.first)] = true;
    }
    for (std::int64_t q = 0; q < n_queries; ++q) {
      admitted.longest = std::max(admitted.longest, args.allow.row_size(q));
    }
    for (std::int64_t i = 0; i < range.size(); ++i) {
      if (seen[static_cast<std::size_t>(i)]) admitted.ids.push_back(static_cast<std::int32_t>(range.first + i));
    }
  } else if (args.has_allow_ids) {
    admitted.given = true;
    std::copy_if(args.allow_ids.begin(), args.allow_ids.end(), std::back_inserter(admitted.ids),
                 [&](std::int32_t id) { return range.has(id); });
    std::sort(admitted.ids.begin(), admitted.ids.end());
    admitted.ids.erase(std::unique(admitted.ids.begin(), admitted.ids.end()), admitted.ids.end());
    admitted.longest = static_cast<std::int64_t>(admitted.ids.size());
    admitted.pairs = admitted.longest * n_queries;
  }
  return admitted;
}

enum class ListPath {
  kScan,    // all items, and what is found is filtered
  kGather,  // the admitted ones, as tiles of their own
  kPairs,   // those on a query's list, one by one in float64
};

/// What a search costs, in bytes that memory could read meanwhile: of an H200 at 4.2 TB/s, 0.8 Pflop/s in float16 and,
/// for scores of which a thread computes one, 2 Tflop/s in float64. Not measured yet: no device was at hand.
struct ListCosts {
  static constexpr double kFlopsPerByte = 190, kPairBytes = 4.2;  // the latter per dimension
  static constexpr std::int64_t kMostListed = 8192;               // keys of a query, in shared memory

  const ItemSizes& sizes;
  const SearchLimits& limits;
  std::int64_t n_queries;

  double scan(std::int64_t n) const {
    const double padded = slabs_for(sizes.image_dim) * kSlab, items = static_cast<double>(n);
    double passes = 1;
    for (auto seen = static_cast<double>(limits.first_items); seen < items; seen *= static_cast<double>(limits.growth))
      ++passes;
    const double flops = 2 * padded * items * static_cast<double>(n_queries);
    return 2 * padded * items + flops / kFlopsPerByte + 2 * (passes + 1) * launch();
  }
  double gather(std::int64_t n) const {
    const double padded = slabs_for(sizes.image_dim) * kSlab;
    return static_cast<double>(n) * (4 * static_cast<double>(sizes.dim) + 2 * padded) + launch() + scan(n);
  }
  double pairs(std::int64_t n) const {
    return static_cast<double>(n) * static_cast<double>(sizes.dim) * kPairBytes + launch();
  }
  double launch() const { return static_cast<double>(limits.launch_bytes); }
};

/// The one rule; the answer is the same whatever it says.
inline ListPath path_for(const Admitted& admitted, const ItemSizes& sizes, const SearchLimits& limits,
                         std::int64_t n_queries) {
  if (!admitted.given) return ListPath::kScan;
  const ListCosts costs{sizes, limits, n_queries};
  const double scan = costs.scan(sizes.n_items), pairs = costs.pairs(admitted.pairs),
               gather = costs.gather(static_cast<std::int64_t>(admitted.ids.size()));
  if (admitted.longest <= ListCosts::kMostListed && pairs <= std::min(scan, gather)) return ListPath::kPairs;
  return gather < scan ? ListPath::kGather : ListPath::kScan;
}

}  // namespace recfuse::cuda
