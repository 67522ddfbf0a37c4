// Few queries at a time, again and again: what they need of the device is allocated once, and their launches are
// recorded once and replayed (a CUDA graph), because starting kernels one by one takes longer than they run.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "batch.cuh"
#include "block_search.cuh"
#include "items.cuh"
#include "recfuse/fuse_topk.hpp"

namespace recfuse::cuda {

/// What two requests have in common that one recording serves.
struct RequestShape {
  std::int64_t n, n_weights, k;
  Fusion fusion;
  Missing missing;
  bool excludes;

  bool operator==(const RequestShape&) const = default;
};

/// Of resident items. Threads may ask at once: each has a recording of its own meanwhile.
template <class Device>
class SmallRequests {
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  static constexpr std::int64_t kMostExcluded = 1 << 14;  // of all queries of a request
  static constexpr std::size_t kMostKept = 8;             // recordings that wait for a request of their shape

  SmallRequests(Device& device, const Catalogue<Device>& catalogue, const SearchLimits& limits)
      : device_(device), catalogue_(catalogue), limits_(limits) {}

  /// Whether a request is one of these. The search must screen it, too.
  static bool takes(const FuseTopkArgs& args) {
    const bool filtered = args.has_allow_ids || args.allow.given();
    return args.queries[0].rows <= SearchLimits::kFewQueries && !filtered &&
           (!args.exclude.given() || args.exclude.nnz() <= kMostExcluded);
  }

  void answer(const BlockSearch<Device>& search, const FuseTopkArgs& args, std::vector<char> places, const TopkOut& out,
              SearchCounts& counts) {
    // Copied in any case: a recording reads them where it did the first time.
    std::replace(places.begin(), places.end(), static_cast<char>(kHere), static_cast<char>(kOnHost));
    std::unique_ptr<Workspace> workspace = take(search, args, places, counts);
    workspace->write(args, places);
    workspace->launches.replay(device_);
    const std::vector<std::int32_t> left = workspace->unanswered(counts);
    if (!left.empty()) search.score_all(workspace->batch, workspace->filters(), left, workspace->lists(), false);
    workspace->read(out, !left.empty());
    keep(std::move(workspace));  // not after an exception: what was sent may not have run
  }

  /// Gives back the memory of recordings that nobody uses; whether there were any.
  bool release() {
    const std::lock_guard lock(mutex_);
    const bool any = !kept_.empty();
    kept_.clear();
    return any;
  }

 private:
  struct Workspace {
    Workspace(Device& device, const Catalogue<Device>& catalogue, const SearchLimits& limits, const RequestShape& asked,
              const FuseTopkArgs& args, const std::vector<char>& places, int tile_queries)
        : shape(asked),
          batch(device, catalogue, args, 0, asked.n, places),
          results(device, static_cast<std::size_t>(asked.n + 2 * asked.n * asked.k)),
          on_host(device, results.size()),
          screening(device, catalogue, asked.n, candidates_per_query(limits, asked.k), tile_queries, results.data()) {
      if (!asked.excludes) return;
      exclude_indptr = {device, static_cast<std::size_t>(asked.n + 1)};
      exclude = {device, static_cast<std::size_t>(kMostExcluded)};
    }

    Filters filters() const { return {exclude_indptr.data(), exclude.data()}; }
    /// After the counts; scores are as wide as ids.
    std::size_t n_listed() const { return static_cast<std::size_t>(shape.n * shape.k); }
    Lists lists() {
      std::int32_t* const ids = results.data() + shape.n;
      return {shape.k, ids, reinterpret_cast<float*>(ids + n_listed())};
    }

    void write(const FuseTopkArgs& args, const std::vector<char>& places) {
      batch.write(args, 0, places);
      if (!shape.excludes) return;
      exclude_indptr.write(std::span(args.exclude.indptr, exclude_indptr.size()));
      exclude.write(std::span(args.exclude.row_indices(0), static_cast<std::size_t>(args.exclude.nnz())));
    }

    /// Waits for counts and lists, which come in one copy.
    std::vector<std::int32_t> unanswered(SearchCounts& counts) {
      results.read({on_host.data(), results.size()});
      return queries_left({on_host.data(), static_cast<std::size_t>(shape.n)}, screening.capacity, counts);
    }
    void read(const TopkOut& out, bool changed) {
      if (changed) results.read({on_host.data(), results.size()});
      const std::int32_t* const ids = on_host.data() + shape.n;
      on_host.copy_to(out.ids.data, ids, n_listed());
      on_host.copy_to(out.scores.data, ids + n_listed(), n_listed());
    }

    RequestShape shape;
    Batch<Device> batch;
    Array<std::int32_t> results;  // counts of candidates (n), ids (n, k), and scores (n, k)
    typename Device::template HostArray<std::int32_t> on_host;
    Screening<Device> screening;
    Array<std::int64_t> exclude_indptr;
    Array<std::int32_t> exclude;
    typename Device::Recording launches;
  };

  std::unique_ptr<Workspace> take(const BlockSearch<Device>& search, const FuseTopkArgs& args,
                                  const std::vector<char>& places, SearchCounts& counts) {
    const RequestShape shape{args.queries[0].rows, args.weights.rows, args.k,
                             args.fusion,          args.missing,      args.exclude.given()};
    {
      const std::lock_guard lock(mutex_);
      const auto at = std::find_if(kept_.begin(), kept_.end(), [&](const auto& one) { return one->shape == shape; });
      if (at != kept_.end()) {
        std::unique_ptr<Workspace> found = std::move(*at);
        kept_.erase(at);
        ++counts.replayed;
        return found;
      }
    }
    auto made = std::make_unique<Workspace>(device_, catalogue_, limits_, shape, args, places,
                                            search.few_tile_queries(shape.fusion));
    made->launches =
        device_.record([&] { search.launch_few(made->batch, made->screening, made->filters(), made->lists()); });
    ++counts.recorded;
    return made;
  }

  void keep(std::unique_ptr<Workspace> workspace) {
    const std::lock_guard lock(mutex_);
    kept_.push_back(std::move(workspace));
    if (kept_.size() > kMostKept) kept_.erase(kept_.begin());
  }

  Device& device_;
  const Catalogue<Device>& catalogue_;
  const SearchLimits& limits_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> kept_;  // the latest is the last
};

}  // namespace recfuse::cuda
