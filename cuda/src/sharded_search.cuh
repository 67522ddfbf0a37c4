// A search over several devices: each has a range of the items, searches it by a thread of its own, and the best of all
// lists are the answer. Scores and ids are those of one device, so the result is, too, however the items are cut.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fused_search.cuh"
#include "pair_counts.cuh"
#include "parallel_devices.cuh"
#include "recfuse/cuda/memory.hpp"
#include "recfuse/fuse_topk.hpp"
#include "shard_lists.cuh"

namespace recfuse::cuda {

template <class Device>
class ShardedSearch {
 public:
  /// A device may be named more than once: it then has as many ranges, each with a stream of its own.
  ShardedSearch(std::span<const int> devices, const FusedItemsArgs& args, const Placement& placement = {},
                const SearchLimits& limits = {})
      : views_(args.items.begin(), args.items.end()), names_(args.names.begin(), args.names.end()), args_(args) {
    validate(args);
    args_.items = views_;
    args_.names = names_;
    args_.present = {};  // the shards have it
    const std::int64_t n_items = views_[0].rows;
    const auto n = std::clamp<std::int64_t>(n_items, 1, static_cast<std::int64_t>(devices.size()));
    for (std::int64_t s = 0; s < n; ++s) {
      const int device = devices[static_cast<std::size_t>(s)];
      named_by_device(device, [&] {
        [[maybe_unused]] const auto here = Device::enter(device);
        shards_.push_back(std::make_unique<Shard>(device));
        shards_.back()->range = {n_items * s / n, n_items * (s + 1) / n};
        shards_.back()->places = shards_.back()->device.receive(args.items, placement);
        on_device_[device].shards.push_back(shards_.back().get());
      });
    }
    // Those of one device one after another: each takes its share of the memory that is left.
    std::vector<std::span<Shard* const>> of_devices;
    for (const auto& [device, its] : on_device_) of_devices.push_back(its.shards);
    in_parallel(of_devices.size(), [&](std::size_t d) {
      auto n_sharing = static_cast<int>(of_devices[d].size());
      for (Shard* const shard : of_devices[d]) {
        shard->run(
            [&] { shard->search.emplace(shard->device, args, shard->range, limits, shard->places, n_sharing--); });
      }
    });
  }

  std::int64_t n_items() const { return views_[0].rows; }
  int n_modalities() const { return static_cast<int>(views_.size()); }

  SearchPlan plan() const {
    SearchPlan all = shards_[0]->search->plan();
    if (shards_.size() == 1) return all;
    all.item_bytes = all.rounded_bytes = 0;
    all.reason.clear();
    for (const auto& shard : shards_) {
      const SearchPlan one = shard->search->plan();
      if (one.screen != "none") all.screen = one.screen;
      all.item_bytes += one.item_bytes;
      all.rounded_bytes += one.rounded_bytes;
      all.reason += (all.reason.empty() ? "cuda:" : "; cuda:") + std::to_string(shard->index) + ": " + one.reason;
    }
    return all;
  }

  /// As FusedSearch::topk().
  SearchCounts topk(const FuseTopkArgs& args, const TopkOut& out, const MatrixView<double>& parts,
                    const Placement& placement = {}) const {
    validate(args, args_, out, parts);
    const std::int64_t n = args.queries[0].rows;
    if (n == 0) return {};
    const auto places = received(args.queries, placement);
    std::vector<SearchCounts> counts(shards_.size());
    if (shards_.size() == 1) {
      shards_[0]->run([&] { counts[0] = shards_[0]->search->answer(args, out, parts, places[0]); });
      return counts[0];
    }
    const int n_terms = parts.data == nullptr ? 0 : n_modalities();
    std::vector<ShardLists> lists(shards_.size());
    in_parallel(shards_.size(), [&](std::size_t s) {
      const auto turn = turn_on(shards_[s]->index);
      lists[s] = ShardLists(n, args.k, n_terms);
      shards_[s]->run(
          [&] { counts[s] = shards_[s]->search->answer(args, lists[s].out(), lists[s].parts(), places[s]); });
    });
    ShardLists best(n, args.k, n_terms);
    in_parallel(shards_.size(), [&](std::size_t s) {
      const auto share = static_cast<std::int64_t>(s), n_shares = static_cast<std::int64_t>(shards_.size());
      for (std::int64_t q = n * share / n_shares; q < n * (share + 1) / n_shares; ++q) merge_lists(lists, q, best);
    });
    shards_[0]->run([&] { best.template copy_to<Device>(out, parts); });
    SearchCounts all;
    for (const SearchCounts& one : counts) all += one;
    return all;
  }

  void score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                   const MatrixView<double>& parts, const Placement& placement = {}) const {
    validate_pairs(args, args_, pairs);
    if (pairs.nnz() == 0) return;
    const auto places = received(args.queries, placement);
    in_parallel(shards_.size(), [&](std::size_t s) {
      const auto turn = turn_on(shards_[s]->index);
      ShardPairs own(pairs, shards_[s]->range, parts.data == nullptr ? 0 : n_modalities());
      shards_[s]->run(
          [&] { shards_[s]->search->score_valid(args, own.pairs(), own.scores(), own.parts(), places[s]); });
      own.write(out, parts);
    });
  }

  /// Each shard counts among its items, against the scores of all pairs; what they count adds up.
  void rank_pairs(const FuseTopkArgs& args, const CsrView& pairs, const PairRanks& out,
                  const Placement& placement = {}) const {
    validate_ranks(args, args_, pairs, out);
    if (pairs.rows == 0) return;
    std::vector<float> scores(static_cast<std::size_t>(pairs.nnz()));
    score_pairs(args, pairs, scores, {}, placement);
    const auto places = received(args.queries, placement);
    std::vector<CountsOfPairs> counts(shards_.size(), CountsOfPairs(scores.size(), out.n_ranked.size()));
    in_parallel(shards_.size(), [&](std::size_t s) {
      const auto turn = turn_on(shards_[s]->index);
      shards_[s]->run([&] { shards_[s]->search->count_pairs(args, pairs, scores, counts[s].view(), places[s]); });
    });
    for (std::size_t s = 1; s < counts.size(); ++s) counts[0] += counts[s];
    counts[0].write_ranks(pairs, scores, args.exclude, out);
  }

 private:
  struct Shard {
    explicit Shard(int which) : index(which), device(which) {}

    template <class F>
    void run(const F& f) {
      named_by_device(index, [&] {
        [[maybe_unused]] const auto here = device.enter();
        f();
      });
    }

    int index;
    Device device;
    ItemRange range;
    std::vector<char> places;  // of the items
    std::optional<FusedSearch<Device>> search;
  };

  struct OnDevice {
    std::vector<Shard*> shards;
    mutable std::mutex turn;
  };

  /// Where the queries are, as each shard sees them. Of the calling thread, whose streams may be meant.
  std::vector<std::vector<char>> received(std::span<const MatrixView<const float>> queries,
                                          const Placement& placement) const {
    std::vector<std::vector<char>> places;
    for (const auto& shard : shards_) {
      shard->run([&] { places.push_back(shard->device.receive(queries, placement)); });
    }
    return places;
  }

  /// Of shards that stream on one device, one at a time does: each counts on the memory that is free.
  std::unique_lock<std::mutex> turn_on(int device) const {
    const OnDevice& here = on_device_.at(device);
    const bool streams = std::any_of(here.shards.begin(), here.shards.end(),
                                     [](const Shard* shard) { return shard->search->is_streamed(); });
    if (!streams || here.shards.size() == 1) return {};
    return std::unique_lock(here.turn);
  }

  std::vector<MatrixView<const float>> views_;
  std::vector<std::string> names_;
  FusedItemsArgs args_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::map<int, OnDevice> on_device_;
};

}  // namespace recfuse::cuda
