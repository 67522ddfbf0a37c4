// A search on a device, whatever that is: the GPU (device.cuh) or the emulator (emulator.hpp).
//
// A Device has: Array<T>, memory of its own with size(), data(), read(span) and write(span); Upload, which copies rows
// to it beside other work; HostArray<T>, from which and to which it copies fastest; launch(body, grid_x, grid_y,
// shared_bytes); record(f), which returns the launches of f to be replayed; wait(), for all that was sent to it;
// enter(), which a thread holds that uses it; index(), its number; memory_info(index); multiprocessors();
// most_shared_bytes(), of a block; has_hopper(), whether it runs what compute capability 9.0 alone has; and name().
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "allow_lists.cuh"
#include "batch.cuh"
#include "block_loader.cuh"
#include "block_search.cuh"
#include "items.cuh"
#include "pair_ranks.cuh"
#include "recfuse/device_memory.hpp"
#include "recfuse/fuse_topk.hpp"
#include "small_requests.cuh"

namespace recfuse::cuda {

template <class Device>
class FusedSearch {
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  /// `places`: per modality, where its items are (Place); those in the memory of the device are used in place.
  FusedSearch(Device& device, const FusedItemsArgs& args, const SearchLimits& limits = {},
              const std::vector<char>& places = {})
      : FusedSearch(device, args, all_of(args), limits, places, 1) {}
  /// Of some of the items of valid arguments, which keep their ids. As many indexes as `n_sharing`, this and those to
  /// come, share what memory the device has left.
  FusedSearch(Device& device, const FusedItemsArgs& args, const ItemRange& range, const SearchLimits& limits,
              const std::vector<char>& places, int n_sharing)
      : device_(device),
        limits_(limits),
        catalogue_(device, args, places, range),
        plan_(plan_items(catalogue_.sizes, limits_, free_bytes() / n_sharing)) {
    screen_isa(device_);  // a wrong name is told now, whether or not a search will scan
    if (plan_.streamed) {
      refuse_peers();
      loader_.emplace(device_, catalogue_);
      device_.wait();  // for whoever writes matrices that are on the device: from now on they are read at any time
      return;
    }
    resident_.emplace(device_, catalogue_);
  }

  std::int64_t n_items() const { return catalogue_.n_items(); }
  const ItemRange& range() const { return catalogue_.range; }
  bool is_streamed() const { return plan_.streamed; }
  int n_modalities() const { return catalogue_.n_modalities(); }

  SearchPlan plan() const {
    SearchPlan plan;
    const bool screened =
        plan_.streamed ? catalogue_.sizes.dim <= SearchLimits::kMostDim : resident_->block.is_screened();
    plan.screen = screened ? "float16" : "none";
    plan.reason = screened ? "matrix units of " + device_.name() + " by " + screen_isa(device_) + ", scores by float64"
                           : "too many dimensions or items out of range: all pairs by float64";
    if (plan_.streamed) {
      plan.reason += "; items streamed in " + std::to_string(plan_.n_blocks) + " blocks of " +
                     std::to_string(plan_.block_bytes) + " bytes";
    }
    plan.item_bytes = n_items() * catalogue_.sizes.dim * std::int64_t{sizeof(float)};
    plan.rounded_bytes = plan_.streamed ? 0 : resident_->packed.image_bytes();
    plan.unit_classes = 1;
    return plan;
  }

  /// Says how the queries were answered. `places`: as for the items. The results may be anywhere, too.
  SearchCounts topk(const FuseTopkArgs& args, const TopkOut& out, const MatrixView<double>& parts,
                    const std::vector<char>& places = {}) const {
    validate(args, catalogue_.args, out, parts);
    return answer(args, out, parts, places);
  }

  /// The same for valid arguments.
  SearchCounts answer(const FuseTopkArgs& args, const TopkOut& out, const MatrixView<double>& parts,
                      const std::vector<char>& places) const {
    if (args.queries[0].rows == 0) return {};
    try {
      return search(args, out, parts, places);
    } catch (const DeviceOutOfMemory&) {
      if (!small_.release()) throw;
    }
    return search(args, out, parts, places);
  }

  void score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                   const MatrixView<double>& parts, const std::vector<char>& places = {}) const {
    validate_pairs(args, catalogue_.args, pairs);
    score_valid(args, pairs, out, parts, places);
  }

  /// The same for valid arguments, and pairs with items of the range.
  void score_valid(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                   const MatrixView<double>& parts, const std::vector<char>& places) const {
    const std::int64_t term_bytes = parts.data == nullptr ? 0 : n_modalities() * std::int64_t{sizeof(double)};
    for (const PairRun& run : runs_of_pairs(catalogue_.sizes, plan_, limits_, pairs, term_bytes)) {
      score_run(args, pairs, run, out, parts, places);
    }
  }

  /// What rank_pairs() counts of the items of the range, for valid arguments and the scores of all pairs: of those that
  /// score the same the ones with smaller ids, those that score more, all that score the same. Adds up over ranges.
  void count_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<const float> scores, const PairRanks& out,
                   const std::vector<char>& places) const {
    const QuerySizes sizes{pairs.rows};
    std::unique_lock<std::mutex> alone(streaming_, std::defer_lock);
    if (plan_.streamed) alone.lock();
    const ItemPlan plan = plan_.streamed ? plan_now(sizes, false) : plan_;
    const std::int64_t most = queries_at_once(catalogue_.sizes, plan, limits_, sizes);
    for (const PairRun& run : runs_of_queries(plan, limits_, pairs, args.exclude, most)) {
      count_batch(args, pairs, scores, run.first_query, run.last_query, plan, places, out);
    }
  }

 private:
  static ItemRange all_of(const FusedItemsArgs& args) {
    validate(args);
    return {0, args.items[0].rows};
  }

  /// Blocks come from the host or from this device's own memory.
  void refuse_peers() const {
    for (std::size_t m = 0; m < catalogue_.places.size(); ++m) {
      if (place_of(catalogue_.places, m) != kOnPeer) continue;
      throw std::invalid_argument(
          catalogue_.args.op + ": items must be in host memory, or on cuda:" + std::to_string(device_.index()) +
          ", which has no room for " + std::to_string(n_items()) + " of them; got an array on another GPU");
    }
  }

  void score_run(const FuseTopkArgs& args, const CsrView& pairs, const PairRun& run, std::span<float> out,
                 const MatrixView<double>& parts, const std::vector<char>& places) const {
    const auto n = static_cast<std::size_t>(run.last - run.first);
    std::vector<std::int64_t> rows;
    for (std::int64_t q = run.first_query; q < run.last_query; ++q) {
      const std::int64_t begin = pairs.indptr[q] - pairs.indptr[0], end = begin + pairs.row_size(q);
      const std::int64_t size = std::min(end, run.last) - std::max(begin, run.first);
      rows.insert(rows.end(), static_cast<std::size_t>(size), q - run.first_query);
    }
    const std::span ids(pairs.row_indices(0) + run.first, n);
    const Array<std::int64_t> rows_there(device_, std::span<const std::int64_t>(rows));
    const Array<std::int32_t> ids_there(device_, ids);
    Array<float> scores(device_, n);
    Array<double> terms(device_, parts.data == nullptr ? 0 : n * catalogue_.views.size());
    Batch<Device> batch(device_, catalogue_, args, run.first_query, run.last_query, places);
    with_items(ids, [&](const BlockSearch<Device>& search) {
      search.prepare(batch);
      search.score(batch, rows_there.data(), 1, ids_there.data(), static_cast<std::int64_t>(n), scores.data(),
                   parts.data == nullptr ? nullptr : terms.data());
    });
    scores.read(out.subspan(static_cast<std::size_t>(run.first), n));
    if (parts.data != nullptr) terms.read(std::span(parts.row(run.first), terms.size()));
  }

  /// Streamed items pass once for every batch of queries.
  void count_batch(const FuseTopkArgs& args, const CsrView& pairs, std::span<const float> scores, std::int64_t first,
                   std::int64_t last, const ItemPlan& plan, const std::vector<char>& places,
                   const PairRanks& out) const {
    Batch<Device> batch(device_, catalogue_, args, first, last, places);
    FuseTopkArgs excluding = args;
    excluding.allow = {};
    const Array<std::uint32_t> all_allowed;
    const BatchFilters<Device> filters(device_, excluding, first, last, all_allowed);
    CountedBatch<Device> counted(device_, catalogue_, limits_, pairs, scores, first, last);
    const auto count = [&](const ItemBlock<Device>& block, const PackedItems<Device>& packed) {
      const BlockSearch<Device> search = search_of(plan, block, &packed);
      search.prepare(batch);
      counted.count(block, packed, batch, filters.view(), block.is_screened() && search.adds_terms(args.fusion));
    };
    if (plan_.streamed) {
      loader_->each_block(plan.block_items, [&](const ItemBlock<Device>& block) {
        count(block, PackedItems<Device>(device_, catalogue_, block));
      });
    } else {
      count(resident_->block, resident_->packed);
    }
    counted.read(out, first, pairs.indptr[first] - pairs.indptr[0]);
  }

  struct Resident {
    Resident(Device& device, const Catalogue<Device>& catalogue)
        : matrices(upload(device, catalogue.views, catalogue.range.first, catalogue.range.last, catalogue.places)),
          block(device, catalogue, matrices.view(), catalogue.range.first, catalogue.n_items()),
          packed(device, catalogue, block) {}

    DeviceMatrices<Device> matrices;
    ItemBlock<Device> block;
    PackedItems<Device> packed;
  };

  /// What was asked, and where the answer goes.
  struct Call {
    const FuseTopkArgs& args;
    const std::vector<char>& places;
    const Array<std::uint32_t>& allowed;
    const Admitted& admitted;
    const TopkOut& out;
    const MatrixView<double>& parts;
    ItemPlan plan;

    std::int64_t n() const { return args.queries[0].rows; }
    QuerySizes sizes() const {
      const auto bytes = [&](const CsrView& csr) {
        return csr.given() ? csr.nnz() / n() * std::int64_t{sizeof(std::int32_t)} + 16 : 0;
      };
      return {n(), args.k, bytes(args.exclude) + bytes(args.allow)};
    }
    double share_of(std::int64_t n_items) const { return admitted.share(n(), n_items); }
    double share_of_gathered() const { return share_of(static_cast<std::int64_t>(admitted.ids.size())); }
  };

  SearchCounts search(const FuseTopkArgs& args, const TopkOut& out, const MatrixView<double>& parts,
                      const std::vector<char>& places) const {
    SearchCounts counts;
    if (!plan_.streamed && parts.data == nullptr && SmallRequests<Device>::takes(args)) {
      const BlockSearch<Device> search = search_of(plan_, resident_->block, &resident_->packed);
      if (search.screens(args.fusion, args.k)) {
        small_.answer(search, args, places, out, counts);
        return counts;
      }
    }
    const Array<std::uint32_t> allowed = allowed_bits(device_, args, catalogue_.n_all());
    const Admitted admitted = admitted_by(args, range());
    Call call{args, places, allowed, admitted, out, parts, plan_};
    if (plan_.streamed) {
      search_streamed(call, counts);
    } else {
      search_resident(call, counts);
    }
    return counts;
  }

  std::int64_t free_bytes() const {
    return static_cast<std::int64_t>(
        std::min<std::size_t>(device_.memory_info(device_.index()).free, static_cast<std::size_t>(kUnlimitedBytes)));
  }

  /// Items that are `gathered` are copied, wherever they are.
  ItemPlan plan_now(const QuerySizes& queries, bool gathered) const {
    ItemSizes sizes = catalogue_.sizes;
    if (gathered) sizes.copied_dim = sizes.dim;
    return plan_search(sizes, limits_, plan_, free_bytes(), queries);
  }

  BlockSearch<Device> search_of(const ItemPlan& plan, const ItemBlock<Device>& block,
                                const PackedItems<Device>* packed) const {
    return {device_, catalogue_, limits_, plan, block, packed};
  }

  /// Whether that many items fit as tiles of their own, and leave most of what is free to the search.
  bool has_room_for(std::size_t n_items) const {
    const auto bytes = static_cast<double>(n_items) * 2 * catalogue_.n_slabs() * kSlab;
    return bytes <= static_cast<double>(free_bytes()) / 4;
  }

  void search_resident(const Call& call, SearchCounts& counts) const {
    const ItemBlock<Device>& block = resident_->block;
    const auto path = path_for(call.admitted, catalogue_.sizes, limits_, call.n());
    if (path == ListPath::kPairs) {
      search_lists(call, counts);
    } else if (path == ListPath::kGather && block.is_screened() && has_room_for(call.admitted.ids.size())) {
      counts.gathered += static_cast<std::int64_t>(call.admitted.ids.size());
      const PackedItems<Device> packed(device_, catalogue_, block, call.admitted.ids);
      search_block(call, block, packed, call.share_of_gathered(), false, counts);
    } else {
      search_block(call, block, resident_->packed, call.share_of(n_items()), false, counts);
    }
  }

  /// Of the items that are admitted at all, unless those are most of them.
  void search_streamed(Call& call, SearchCounts& counts) const {
    const std::lock_guard alone(streaming_);
    const auto n_admitted = static_cast<std::int64_t>(call.admitted.ids.size());
    const bool gathers = call.admitted.given && n_admitted > 0 && 2 * n_admitted < n_items();
    call.plan = plan_now(call.sizes(), gathers);
    const double share = gathers ? call.share_of_gathered() : call.share_of(n_items());
    bool carried = false;
    const auto visit = [&](const ItemBlock<Device>& block) {
      search_block(call, block, PackedItems<Device>(device_, catalogue_, block), share, carried, counts);
      carried = true;
    };
    if (gathers) {
      counts.gathered += n_admitted;
      loader_->each_block_of(call.plan.block_items, call.admitted.ids, visit);
    } else {
      loader_->each_block(call.plan.block_items, visit);
    }
    if (call.parts.data != nullptr) write_streamed_terms(call);
  }

  template <class Visit>
  void each_batch(const Call& call, const Visit& visit) const {
    const std::int64_t n = call.n(), batch = queries_at_once(catalogue_.sizes, call.plan, limits_, call.sizes());
    for (std::int64_t first = 0; first < n; first += batch) visit(first, std::min(n, first + batch));
  }

  /// Lists of a batch of queries on the device.
  struct DeviceLists {
    DeviceLists(Device& device, std::int64_t n, std::int64_t n_best)
        : k(n_best), ids(device, static_cast<std::size_t>(n * n_best)), scores(device, ids.size()) {}
    void write(const TopkOut& from, std::int64_t first) {
      ids.write(std::span(from.ids.row(first), ids.size()));
      scores.write(std::span(from.scores.row(first), ids.size()));
    }
    void read(const TopkOut& to, std::int64_t first) const {
      ids.read(std::span(to.ids.row(first), ids.size()));
      scores.read(std::span(to.scores.row(first), ids.size()));
    }
    Lists view() { return {k, ids.data(), scores.data()}; }

    std::int64_t k;
    Array<std::int32_t> ids;
    Array<float> scores;
  };

  void search_block(const Call& call, const ItemBlock<Device>& block, const PackedItems<Device>& packed, double share,
                    bool carried, SearchCounts& counts) const {
    const BlockSearch<Device> search = search_of(call.plan, block, &packed);
    each_batch(call, [&](std::int64_t first, std::int64_t last) {
      Batch<Device> batch(device_, catalogue_, call.args, first, last, call.places);
      const BatchFilters<Device> filters(device_, call.args, first, last, call.allowed);
      DeviceLists lists(device_, batch.n, call.args.k);
      if (carried) lists.write(call.out, first);
      search.search(batch, filters.view(), lists.view(), carried, share, counts);
      lists.read(call.out, first);
      if (call.parts.data != nullptr && !plan_.streamed) write_terms(call, search, batch, lists.ids, first);
    });
  }

  /// Of resident items, every pair of a query and an item on its list.
  void search_lists(const Call& call, SearchCounts& counts) const {
    const BlockSearch<Device> search = search_of(plan_, resident_->block, nullptr);
    const Array<std::int32_t> of_all =
        call.args.allow.given() ? Array<std::int32_t>() : Array<std::int32_t>(device_, std::span(call.admitted.ids));
    counts.listed += call.admitted.pairs;
    each_batch(call, [&](std::int64_t first, std::int64_t last) {
      Batch<Device> batch(device_, catalogue_, call.args, first, last, call.places);
      const BatchFilters<Device> filters(device_, call.args, first, last, call.allowed);
      DeviceLists lists(device_, batch.n, call.args.k);
      search.search_listed(batch, filters.view(), lists.view(), of_all, call.admitted.longest);
      lists.read(call.out, first);
      if (call.parts.data != nullptr) write_terms(call, search, batch, lists.ids, first);
    });
  }

  void write_terms(const Call& call, const BlockSearch<Device>& search, const Batch<Device>& batch,
                   const Array<std::int32_t>& ids, std::int64_t first) const {
    Array<double> terms(device_, ids.size() * catalogue_.views.size());
    search.score(batch, nullptr, call.args.k, ids.data(), static_cast<std::int64_t>(ids.size()), nullptr, terms.data());
    terms.read(std::span(call.parts.row(first), terms.size()));
  }

  /// Of the items that are in the lists in the end, whose blocks are gone.
  void write_streamed_terms(const Call& call) const {
    each_batch(call, [&](std::int64_t first, std::int64_t last) {
      Batch<Device> batch(device_, catalogue_, call.args, first, last, call.places);
      Array<std::int32_t> ids(device_, static_cast<std::size_t>(batch.n * call.args.k));
      ids.write(std::span(call.out.ids.row(first), ids.size()));
      Array<double> terms(device_, ids.size() * catalogue_.views.size());
      terms.clear();  // where no list has an item, there is no block
      with_items_alone(ids.all(), [&](const BlockSearch<Device>& search) {
        search.prepare(batch);
        search.score(batch, nullptr, call.args.k, ids.data(), static_cast<std::int64_t>(ids.size()), nullptr,
                     terms.data());
      });
      terms.read(std::span(call.parts.row(first), terms.size()));
    });
  }

  /// visit(search) for blocks that have these items; any order, repeats and -1 are harmless.
  template <class Visit>
  void with_items(std::span<const std::int32_t> ids, const Visit& visit) const {
    if (!plan_.streamed) return visit(search_of(plan_, resident_->block, nullptr));
    const std::lock_guard alone(streaming_);
    with_items_alone({ids.begin(), ids.end()}, visit);
  }
  template <class Visit>
  void with_items_alone(std::vector<std::int32_t> ids, const Visit& visit) const {
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    if (!ids.empty() && ids.front() < 0) ids.erase(ids.begin());
    const ItemPlan plan = plan_now({}, true);
    loader_->each_block_of(plan.block_items, ids, [&](const ItemBlock<Device>& block) {
      visit(search_of(plan, block, nullptr));
      device_.wait();
    });
  }

  Device& device_;
  SearchLimits limits_;
  Catalogue<Device> catalogue_;
  ItemPlan plan_;
  std::optional<Resident> resident_;
  mutable SmallRequests<Device> small_{device_, catalogue_, limits_};  // of resident items
  mutable std::optional<BlockLoader<Device>> loader_;
  mutable std::mutex streaming_;  // one search at a time: the blocks take what memory there is
};

}  // namespace recfuse::cuda
