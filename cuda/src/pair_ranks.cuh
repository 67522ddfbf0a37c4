// What is counted for the pairs of a batch of queries on a device, block of items by block.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "batch.cuh"
#include "count_better.cuh"
#include "items.cuh"
#include "rank.cuh"

namespace recfuse::cuda {

template <class Device>
class CountedBatch {
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  /// Pairs of queries [first, last).
  CountedBatch(Device& device, const Catalogue<Device>& catalogue, const SearchLimits& limits, const CsrView& pairs,
               std::span<const float> scores, std::int64_t first, std::int64_t last)
      : device_(device),
        catalogue_(catalogue),
        limits_(limits),
        n_queries_(last - first),
        n_(pairs.indptr[last] - pairs.indptr[first]),
        indptr_(device, std::span(pairs.indptr + first, static_cast<std::size_t>(last - first + 1))),
        ids_(device, std::span(pairs.row_indices(first), static_cast<std::size_t>(n_))),
        scores_(device, scores.subspan(static_cast<std::size_t>(pairs.indptr[first] - pairs.indptr[0]),
                                       static_cast<std::size_t>(n_))),
        better_(device, static_cast<std::size_t>(n_)),
        tied_(device, static_cast<std::size_t>(n_)),
        before_(device, static_cast<std::size_t>(n_)),
        screened_(device, static_cast<std::size_t>(n_)),
        n_ranked_(device, static_cast<std::size_t>(n_queries_)) {
    for (Array<std::int32_t>* counts : {&better_, &tied_, &before_, &n_ranked_}) counts->clear();
  }

  /// Adds what there is in a block.
  void count(const ItemBlock<Device>& block, const PackedItems<Device>& packed, Batch<Device>& batch,
             const Filters& filters, bool screens) {
    std::vector<std::int32_t> n_regular(static_cast<std::size_t>(catalogue_.n_groups), 0);
    for (std::int64_t row = 0; row < block.size(); ++row) {
      const std::int32_t id = block.id(row);
      if (block.is_regular(id)) ++n_regular[static_cast<std::size_t>(catalogue_.group_of(id))];
    }
    const Array<std::int32_t> regular(device_, std::span<const std::int32_t>(n_regular));
    const auto rest = [&](const Candidates& candidates) {
      device_.launch(CountRest{candidates, block.items(), batch.view(), filters, block.irregular(), block.n_irregular(),
                               regular.data(), screened_.data(), counted()},
                     n_queries_, 1, 0);
      device_.wait();  // for what a scan has found
    };
    if (!screens) return rest(Candidates{0, nullptr, nullptr, nullptr, nullptr, nullptr});
    if (device_.most_shared_bytes() >= ScreenMany::kSharedBytes && n_queries_ > SearchLimits::kFewQueries) {
      scan<ScreenMany>(block, packed, batch, filters, rest);
    } else {
      scan<ScreenFew>(block, packed, batch, filters, rest);
    }
  }

  /// Of pairs from `at` on, and queries from `first` on.
  void read(const PairRanks& out, std::int64_t first, std::int64_t at) const {
    const auto part = [&](std::span<std::int32_t> all, std::int64_t from, const Array<std::int32_t>& values) {
      values.read(all.subspan(static_cast<std::size_t>(from), values.size()));
    };
    part(out.rank, at, before_);
    part(out.first, at, better_);
    part(out.last, at, tied_);
    part(out.n_ranked, first, n_ranked_);
  }

 private:
  template <class Body, class Rest>
  void scan(const ItemBlock<Device>& block, const PackedItems<Device>& packed, Batch<Device>& batch,
            const Filters& filters, const Rest& rest) {
    Screening<Device> screening(device_, catalogue_, n_queries_, candidates_per_query(limits_, 1), Body::kQueries);
    screened_.clear();
    device_.launch(
        PrepareQueries{batch.view(), block.items(), block.units(), block.largest_item(), Body::kQueries,
                       catalogue_.n_slabs(), batch.inverse_norms.data(), batch.factors.data(), screening.bounds.data(),
                       screening.scales.data(), screening.image.data(), screening.candidates()},
        blocks_for(n_queries_, PrepareQueries::kThreads), 1, 0);
    const ScreenedQueries queries{
        screening.image.data(), screening.bounds.data(), screening.scales.data(), batch.factors.data(), batch.n,
        batch.rule.fusion,      batch.rule.missing,      batch.weights.data(),    batch.n_weights};
    const std::int64_t query_tiles = blocks_for(n_queries_, Body::kQueries), n_tiles = packed.n_tiles();
    const std::int64_t wanted = std::max<std::int64_t>(1, kWaves * device_.multiprocessors() / query_tiles);
    const std::int64_t per_block = std::max<std::int64_t>(1, blocks_for(n_tiles, wanted));
    if (n_tiles > 0) {
      device_.launch(
          CountingScreen<Body>{{Scan{packed.tiles(), queries, screening.candidates(), filters}, 0, n_tiles, per_block},
                               counted(),
                               screened_.data()},
          query_tiles, blocks_for(n_tiles, per_block), Body::kSharedBytes);
    }
    rest(screening.candidates());
  }

  CountedPairs counted() {
    return {indptr_.data(), ids_.data(),    scores_.data(),  better_.data(),
            tied_.data(),   before_.data(), n_ranked_.data()};
  }
  static std::int64_t blocks_for(std::int64_t n, std::int64_t per_block) { return (n + per_block - 1) / per_block; }

  static constexpr std::int64_t kWaves = 4;  // of blocks

  Device& device_;
  const Catalogue<Device>& catalogue_;
  const SearchLimits& limits_;
  std::int64_t n_queries_, n_;
  Array<std::int64_t> indptr_;
  Array<std::int32_t> ids_;
  Array<float> scores_;
  Array<std::int32_t> better_, tied_, before_, screened_, n_ranked_;
};

}  // namespace recfuse::cuda
