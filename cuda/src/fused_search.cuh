// A search on a device, whatever that is: the GPU (device.cuh) or the emulator (emulator.hpp).
//
// A Device has: Array<T>, memory of its own with size(), data(), read(span) and write(span); launch(body, grid_x,
// grid_y, shared_bytes); multiprocessors(); most_shared_bytes(), of a block; has_hopper(), whether it runs what compute
// capability 9.0 alone has; and name().
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "candidates.cuh"
#include "prepare.cuh"
#include "rank.cuh"
#include "recfuse/fuse_topk.hpp"
#include "recfuse/presence.hpp"
#include "screen_choice.cuh"
#include "vectors.cuh"

namespace recfuse::cuda {

/// How much of a device a search takes at a time. Tests shrink it, so that everything overflows.
struct SearchLimits {
  std::int64_t capacity = 4096;                 // candidates of a query, at least
  std::int64_t first_items = 2048;              // scanned before there is a threshold
  std::int64_t growth = 4;                      // of what has been scanned, from pass to pass
  std::int64_t batch_bytes = 256 << 20;         // of candidates
  std::int64_t keys_bytes = 256 << 20;          // of the keys of queries that are not screened
  static constexpr std::int64_t kMostK = 1024;  // of a screened query
  static constexpr std::int64_t kMostIrregular = 1024;
  static constexpr std::int64_t kMostDim = 1 << 15;
  static constexpr std::int64_t kFewQueries = 64;
};

/// Of one search, all batches together.
struct SearchCounts {
  std::int64_t candidates = 0;  // scored by float64 after the screen
  std::int64_t unscreened = 0;  // queries for which every item was
};

template <class Device>
class FusedSearch {
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  /// `on_device`: per modality, whether its items are in the memory of the device; they are then used in place.
  FusedSearch(Device& device, const FusedItemsArgs& args, const SearchLimits& limits = {},
              const std::vector<char>& on_device = {})
      : device_(device),
        limits_(limits),
        args_(args),
        shapes_(args.items.begin(), args.items.end()),
        names_(args.names.begin(), args.names.end()) {
    args_.items = shapes_;
    args_.names = names_;
    validate(args_);
    upload_items(on_device);
    measure_items();
    order_items();
    pack_items();
    args_.present = {};  // the groups have it now
  }

  std::int64_t n_items() const { return shapes_[0].rows; }
  int n_modalities() const { return static_cast<int>(shapes_.size()); }

  SearchPlan plan() const {
    SearchPlan plan;
    plan.screen = screened_ ? "float16" : "none";
    plan.reason = screened_ ? "matrix units of " + device_.name() + " by " + screen_isa(device_) + ", scores by float64"
                            : "too many dimensions or items out of range: all pairs by float64";
    for (const auto& shape : shapes_) plan.item_bytes += shape.rows * shape.cols * std::int64_t{sizeof(float)};
    plan.rounded_bytes = static_cast<std::int64_t>(image_.size() * sizeof(half_bits));
    plan.unit_classes = 1;
    return plan;
  }

  /// Says how the queries were answered. `on_device`: as for the items. The results may be anywhere, too.
  SearchCounts topk(const FuseTopkArgs& args, const TopkOut& out, const MatrixView<double>& parts,
                    const std::vector<char>& on_device = {}) const {
    validate(args, args_, out, parts);
    const std::int64_t n = args.queries[0].rows, per_query = capacity_for(args.k) * kCandidateBytes;
    const std::int64_t batch =
        std::clamp<std::int64_t>(limits_.batch_bytes / per_query, 1, std::max<std::int64_t>(n, 1));
    const Array<std::uint32_t> allowed = allowed_bits(args);
    SearchCounts counts;
    for (std::int64_t first = 0; first < n; first += batch) {
      search(args, first, std::min(n, first + batch), on_device, allowed, counts, out, parts);
    }
    return counts;
  }

  void score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                   const MatrixView<double>& parts, const std::vector<char>& on_device = {}) const {
    validate_pairs(args, args_, pairs);
    if (pairs.nnz() == 0) return;
    Batch batch(*this, args, 0, pairs.rows, on_device);
    prepare(batch, nullptr, 1);
    std::vector<std::int64_t> rows;
    for (std::int64_t q = 0; q < pairs.rows; ++q)
      rows.insert(rows.end(), static_cast<std::size_t>(pairs.row_size(q)), q);
    const Array<std::int64_t> of(device_, std::span<const std::int64_t>(rows));
    const std::size_t n = rows.size();
    const Array<std::int32_t> ids(device_, std::span(pairs.row_indices(0), n));
    Array<float> scores(device_, n);
    Array<double> terms(device_, n * shapes_.size());
    score(batch, of.data(), 1, ids.data(), static_cast<std::int64_t>(n), scores.data(), terms.data());
    scores.read(out);
    if (parts.data != nullptr) terms.read(std::span(parts.data, n * shapes_.size()));
  }

 private:
  static constexpr std::int64_t kCandidateBytes = 2 * sizeof(float) + sizeof(std::int32_t);

  /// A matrix per modality in the device's memory: a copy of what is elsewhere.
  struct DeviceMatrices {
    std::vector<Array<float>> copies;
    Array<const float*> pointers;
    Array<std::int64_t> cols;

    Matrices view() const { return {pointers.data(), cols.data(), static_cast<int>(cols.size())}; }
  };

  DeviceMatrices upload(std::span<const MatrixView<const float>> views, std::int64_t first, std::int64_t last,
                        const std::vector<char>& on_device) const {
    DeviceMatrices result;
    std::vector<const float*> pointers;
    std::vector<std::int64_t> cols;
    for (std::size_t m = 0; m < views.size(); ++m) {
      const auto& view = views[m];
      cols.push_back(view.cols);
      if (m < on_device.size() && on_device[m] != 0 && view.stride == view.cols) {
        pointers.push_back(view.row(first));
        continue;
      }
      result.copies.emplace_back(device_, static_cast<std::size_t>((last - first) * view.cols));
      result.copies.back().write_rows(view.row(first), last - first, view.cols, view.stride);
      pointers.push_back(result.copies.back().data());
    }
    result.pointers = Array<const float*>(device_, std::span<const float* const>(pointers));
    result.cols = Array<std::int64_t>(device_, std::span<const std::int64_t>(cols));
    return result;
  }

  /// Queries of one call, and what is known of them on the device.
  struct Batch {
    Batch(const FusedSearch& search, const FuseTopkArgs& args, std::int64_t first, std::int64_t last,
          const std::vector<char>& on_device)
        : n(last - first),
          n_weights(args.weights.rows == 1 ? 1 : n),
          matrices(search.upload(args.queries, first, last, on_device)),
          weights(search.device_, std::span(args.weights.row(args.weights.rows == 1 ? 0 : first),
                                            static_cast<std::size_t>(n_weights * args.weights.cols))),
          inverse_norms(search.device_, static_cast<std::size_t>(n) * search.shapes_.size()),
          factors(search.device_, static_cast<std::size_t>(n) * search.groups_.size()),
          rule{args.fusion, args.missing} {}

    cuda::Queries view() const {
      return {matrices.view(), n, rule, weights.data(), n_weights, inverse_norms.data(), factors.data()};
    }

    std::int64_t n, n_weights;
    DeviceMatrices matrices;
    Array<double> weights, inverse_norms, factors;
    Rule rule;
  };

  /// What screening a batch needs beside it.
  struct Screening {
    Screening(const FusedSearch& search, std::int64_t n, std::int64_t room, int tile_queries)
        : bounds(search.device_, static_cast<std::size_t>(n) * search.shapes_.size()),
          scales(search.device_, static_cast<std::size_t>(n)),
          image(search.device_, static_cast<std::size_t>((n + tile_queries - 1) / tile_queries * tile_queries) *
                                    static_cast<std::size_t>(search.n_slabs_) * kSlab),
          lower(search.device_, static_cast<std::size_t>(n * room)),
          upper(search.device_, static_cast<std::size_t>(n * room)),
          ids(search.device_, static_cast<std::size_t>(n * room)),
          counts(search.device_, static_cast<std::size_t>(n)),
          thresholds(search.device_, static_cast<std::size_t>(n)),
          capacity(static_cast<int>(room)) {
      image.clear();  // rows beyond the queries
    }

    cuda::Candidates candidates() {
      return {capacity, lower.data(), upper.data(), ids.data(), counts.data(), thresholds.data()};
    }

    Array<QueryBound> bounds;
    Array<double> scales;
    Array<half_bits> image;
    Array<float> lower, upper;
    Array<std::int32_t> ids, counts;
    Array<float> thresholds;
    int capacity;
  };

  void upload_items(const std::vector<char>& on_device) {
    items_ = upload(args_.items, 0, n_items(), on_device);
    PresenceGroups groups = presence_groups(args_.present, n_items(), shapes_.size());
    groups_ = std::move(groups.groups);
    group_of_ = std::move(groups.group_of);
    group_of_.resize(static_cast<std::size_t>(n_items()), 0);
    std::vector<char> present;
    for (const auto& group : groups_) present.insert(present.end(), group.present.begin(), group.present.end());
    present_ = Array<char>(device_, std::span<const char>(present));
    groups_of_items_ = Array<std::int32_t>(device_, std::span<const std::int32_t>(group_of_));
    inverse_norms_ = Array<double>(device_, static_cast<std::size_t>(n_items()) * shapes_.size());
  }

  Items items() const {
    return {items_.view(),           n_items(),       args_.metric == Metric::kCosine, inverse_norms_.data(),
            groups_of_items_.data(), present_.data(), static_cast<int>(groups_.size())};
  }

  /// Norms; which items the screen cannot judge; the unit of every modality.
  void measure_items() {
    const auto n = static_cast<std::size_t>(n_items());
    Array<float> largest(device_, n * shapes_.size());
    Array<std::int32_t> irregular(device_, n);
    device_.launch(MeasureItems{items(), inverse_norms_.data(), largest.data(), irregular.data()},
                   blocks_for(n_items(), MeasureItems::kThreads), 1, 0);
    irregular_flags_ = irregular.all();
    const std::vector<float> of_items = largest.all();
    std::vector<double> most(shapes_.size(), 0.0), units;
    for (std::size_t i = 0; i < n; ++i) {
      if (irregular_flags_[i] != 0) {
        irregular_.push_back(static_cast<std::int32_t>(i));
        continue;
      }
      for (std::size_t m = 0; m < most.size(); ++m) {
        most[m] = std::max(most[m], static_cast<double>(of_items[i * most.size() + m]));
      }
    }
    std::int64_t total_dim = 0;
    for (std::size_t m = 0; m < most.size(); ++m) {
      units.push_back(unit_for(most[m]));
      total_dim += shapes_[m].cols;
      largest_item_ = std::max(largest_item_, most[m] * std::sqrt(static_cast<double>(shapes_[m].cols)));
    }
    units_ = Array<double>(device_, std::span<const double>(units));
    irregular_ids_ = Array<std::int32_t>(device_, std::span<const std::int32_t>(irregular_));
    n_slabs_ = slabs_for(total_dim);
    screened_ = total_dim <= SearchLimits::kMostDim &&
                static_cast<std::int64_t>(irregular_.size()) <= SearchLimits::kMostIrregular &&
                PackItems::shared_bytes(n_modalities()) <= device_.most_shared_bytes();
  }

  /// Regular items by what modalities they have, so that those of a tile are alike.
  void order_items() {
    std::vector<std::int32_t> ids, tile_groups;
    for (std::int32_t group = 0; group < static_cast<std::int32_t>(groups_.size()); ++group) {
      for (std::int32_t id = 0; id < static_cast<std::int32_t>(n_items()); ++id) {
        const auto i = static_cast<std::size_t>(id);
        if (group_of_[i] == group && irregular_flags_[i] == 0) ids.push_back(id);
      }
      ids.resize((ids.size() + kTileItems - 1) / kTileItems * kTileItems, -1);
      tile_groups.resize(ids.size() / kTileItems, group);
    }
    irregular_flags_.clear();
    n_tiles_ = static_cast<std::int64_t>(tile_groups.size());
    ids_ = Array<std::int32_t>(device_, std::span<const std::int32_t>(ids));
    tile_groups_ = Array<std::int32_t>(device_, std::span<const std::int32_t>(tile_groups));
  }

  void pack_items() {
    if (!screened_) return;
    image_ = Array<half_bits>(device_, static_cast<std::size_t>(n_tiles_ * kTileItems * n_slabs_ * kSlab));
    tile_norms_ = Array<double>(device_, static_cast<std::size_t>(n_tiles_) * shapes_.size() * 2);
    if (n_tiles_ == 0) return;
    device_.launch(PackItems{items(), ids_.data(), units_.data(), n_slabs_, image_.data(), tile_norms_.data()},
                   n_tiles_, 1, PackItems::shared_bytes(n_modalities()));
  }

  std::int64_t capacity_for(std::int64_t k) const {
    return std::max(limits_.capacity, power_of_two(8 * std::min(k, SearchLimits::kMostK)));
  }

  Array<std::uint32_t> allowed_bits(const FuseTopkArgs& args) const {
    if (!args.has_allow_ids) return {};
    std::vector<std::uint32_t> bits(static_cast<std::size_t>(n_items() / 32 + 1), 0);
    for (const std::int32_t id : args.allow_ids) bits[static_cast<std::size_t>(id / 32)] |= 1U << (id % 32);
    return Array<std::uint32_t>(device_, std::span<const std::uint32_t>(bits));
  }

  /// Rows [first, last) of a filter.
  struct DeviceCsr {
    DeviceCsr(Device& device, const CsrView& csr, std::int64_t first, std::int64_t last) {
      if (!csr.given()) return;
      indptr = Array<std::int64_t>(device, std::span(csr.indptr + first, static_cast<std::size_t>(last - first + 1)));
      indices = Array<std::int32_t>(
          device, std::span(csr.row_indices(first), static_cast<std::size_t>(csr.indptr[last] - csr.indptr[first])));
    }
    Array<std::int64_t> indptr;
    Array<std::int32_t> indices;
  };

  void search(const FuseTopkArgs& args, std::int64_t first, std::int64_t last, const std::vector<char>& on_device,
              const Array<std::uint32_t>& allowed, SearchCounts& counts, const TopkOut& out,
              const MatrixView<double>& parts) const {
    Batch batch(*this, args, first, last, on_device);
    const DeviceCsr exclude(device_, args.exclude, first, last), allow(device_, args.allow, first, last);
    const cuda::Filters filters{exclude.indptr.data(), exclude.indices.data(), allow.indptr.data(),
                                allow.indices.data(), allowed.data()};
    Array<std::int32_t> ids(device_, static_cast<std::size_t>(batch.n * args.k));
    Array<float> scores(device_, ids.size());
    const Lists lists{args.k, ids.data(), scores.data()};
    std::vector<std::int32_t> left;  // for which every item is scored
    if (screens(args)) {
      left = screen_in_passes(batch, filters, lists, admitted_share(args), counts);
    } else {
      prepare(batch, nullptr, 1);
      left.resize(static_cast<std::size_t>(batch.n));
      std::iota(left.begin(), left.end(), 0);
    }
    counts.unscreened += static_cast<std::int64_t>(left.size());
    score_all(batch, filters, left, lists);
    ids.read(std::span(out.ids.row(first), ids.size()));
    scores.read(std::span(out.scores.row(first), scores.size()));
    if (parts.data == nullptr) return;
    Array<double> terms(device_, ids.size() * shapes_.size());
    score(batch, nullptr, args.k, ids.data(), static_cast<std::int64_t>(ids.size()), nullptr, terms.data());
    terms.read(std::span(parts.row(first), terms.size()));
  }

  /// Whether the candidates of a query fit into the shared memory of a block, and their scores are sums.
  bool screens(const FuseTopkArgs& args) const {
    const auto capacity = static_cast<int>(capacity_for(args.k)), n_irregular = static_cast<int>(irregular_.size());
    const std::size_t needed =
        std::max(RaiseThresholds::shared_bytes(capacity), RankCandidates::shared_bytes(capacity, n_irregular));
    return screened_ && is_linear(args.fusion) && args.k <= SearchLimits::kMostK &&
           needed <= device_.most_shared_bytes();
  }

  double admitted_share(const FuseTopkArgs& args) const {
    if (!args.has_allow_ids || n_items() == 0) return 1;
    return std::max(1.0, static_cast<double>(args.allow_ids.size())) / static_cast<double>(n_items());
  }

  void prepare(Batch& batch, Screening* screening, int tile_queries) const {
    PrepareQueries body{batch.view(),
                        items(),
                        units_.data(),
                        largest_item_,
                        tile_queries,
                        n_slabs_,
                        batch.inverse_norms.data(),
                        batch.factors.data(),
                        nullptr,
                        nullptr,
                        nullptr,
                        {}};
    if (screening != nullptr) {
      body.bounds = screening->bounds.data();
      body.scales = screening->scales.data();
      body.image = screening->image.data();
      body.candidates = screening->candidates();
    }
    device_.launch(body, blocks_for(batch.n, PrepareQueries::kThreads), 1, 0);
  }

  std::vector<std::int32_t> screen_in_passes(Batch& batch, const cuda::Filters& filters, const Lists& lists,
                                             double admitted, SearchCounts& counts) const {
    return with_screen(device_, batch.n <= SearchLimits::kFewQueries, [&](auto body) {
      return screen<typename decltype(body)::type>(batch, filters, lists, admitted, counts);
    });
  }

  /// Passes over ranges of items that grow, each with the thresholds that the ones before have set. Returns the queries
  /// that could not be answered: out of the screen's range, or with more candidates than there is room for.
  template <class Body>
  std::vector<std::int32_t> screen(Batch& batch, const cuda::Filters& filters, const Lists& lists, double admitted,
                                   SearchCounts& counts) const {
    Screening screening(*this, batch.n, capacity_for(lists.k), Body::kQueries);
    prepare(batch, &screening, Body::kQueries);
    const Tiles tiles{image_.data(),   ids_.data(), tile_groups_.data(), tile_norms_.data(),
                      present_.data(), n_slabs_,    n_modalities(),      static_cast<int>(groups_.size())};
    const ScreenedQueries queries{screening.image.data(), screening.bounds.data(), screening.scales.data(),
                                  batch.factors.data(), batch.n};
    const std::int64_t query_tiles = blocks_for(batch.n, Body::kQueries);
    std::int64_t scanned = 0;
    while (scanned < n_tiles_) {
      const std::int64_t end =
          std::min(n_tiles_, scanned == 0 ? first_tiles(lists.k, admitted) : scanned * limits_.growth);
      const std::int64_t wanted = std::max<std::int64_t>(1, kWaves * device_.multiprocessors() / query_tiles);
      const std::int64_t per_block = blocks_for(end - scanned, wanted);
      device_.launch(Body{{tiles, queries, screening.candidates(), filters}, scanned, end, per_block}, query_tiles,
                     blocks_for(end - scanned, per_block), Body::kSharedBytes);
      device_.launch(RaiseThresholds{screening.candidates(), lists.k}, batch.n, 1,
                     RaiseThresholds::shared_bytes(screening.capacity));
      scanned = end;
    }
    const auto n_irregular = static_cast<std::int32_t>(irregular_.size());
    device_.launch(RankCandidates{screening.candidates(), items(), batch.view(), filters, irregular_ids_.data(),
                                  n_irregular, lists},
                   batch.n, 1, RankCandidates::shared_bytes(screening.capacity, n_irregular));
    std::vector<std::int32_t> left;
    const std::vector<std::int32_t> of_queries = screening.counts.all();
    for (std::size_t q = 0; q < of_queries.size(); ++q) {
      const bool answered = of_queries[q] <= screening.capacity;
      counts.candidates += answered ? of_queries[q] : 0;
      if (!answered) left.push_back(static_cast<std::int32_t>(q));
    }
    return left;
  }

  /// As many as surely fit, or fewer; more where few of them are admitted.
  std::int64_t first_tiles(std::int64_t k, double admitted) const {
    const std::int64_t most = capacity_for(k);
    const auto items =
        static_cast<double>(std::min(most, std::max(limits_.first_items, 4 * std::min(k, n_items())))) / (2 * admitted);
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(items) / kTileItems, 1,
                                    std::max<std::int64_t>(n_tiles_, 1));
  }

  void score_all(Batch& batch, const cuda::Filters& filters, const std::vector<std::int32_t>& left,
                 const Lists& lists) const {
    const std::int64_t size = power_of_two(n_items());
    const std::int64_t at_once =
        std::max<std::int64_t>(1, limits_.keys_bytes / (size * std::int64_t{sizeof(std::uint64_t)}));
    for (std::size_t begin = 0; begin < left.size(); begin += static_cast<std::size_t>(at_once)) {
      const std::size_t n = std::min(left.size() - begin, static_cast<std::size_t>(at_once));
      const Array<std::int32_t> rows(device_, std::span(left).subspan(begin, n));
      Array<std::uint64_t> keys(device_, n * static_cast<std::size_t>(size));
      const auto n_rows = static_cast<std::int64_t>(n);
      const std::int64_t n_blocks = std::min(blocks_for(size, ScoreAll::kThreads), kMostBlocksY);
      device_.launch(ScoreAll{items(), batch.view(), filters, rows.data(), size, n_blocks, keys.data()}, n_rows,
                     n_blocks, 0);
      device_.launch(RankAll{rows.data(), size, keys.data(), lists}, n_rows, 1, 0);
    }
  }

  void score(const Batch& batch, const std::int64_t* rows, std::int64_t per_query, const std::int32_t* ids,
             std::int64_t n, float* scores, double* terms) const {
    if (n == 0) return;
    device_.launch(ScorePairs{items(), batch.view(), rows, per_query, ids, n, scores, terms},
                   blocks_for(n, ScorePairs::kThreads), 1, 0);
  }

  static std::int64_t blocks_for(std::int64_t n, std::int64_t per_block) { return (n + per_block - 1) / per_block; }

  static constexpr std::int64_t kMostBlocksY = 65'535;
  static constexpr std::int64_t kWaves = 4;  // of blocks: the last one is a quarter of the time, at most

  Device& device_;
  SearchLimits limits_;
  FusedItemsArgs args_;
  std::vector<MatrixView<const float>> shapes_;
  std::vector<std::string> names_;
  DeviceMatrices items_;
  std::vector<PresenceGroup> groups_;
  std::vector<std::int32_t> group_of_, irregular_, irregular_flags_;
  Array<char> present_;
  Array<std::int32_t> groups_of_items_, irregular_ids_, ids_, tile_groups_;
  Array<double> inverse_norms_, units_, tile_norms_;
  Array<half_bits> image_;
  double largest_item_ = 0;
  std::int64_t n_tiles_ = 0;
  int n_slabs_ = 0;
  bool screened_ = false;
};

}  // namespace recfuse::cuda
