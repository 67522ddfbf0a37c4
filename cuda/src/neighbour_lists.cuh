// The best items of a sparse product, on any device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "batch.cuh"
#include "recfuse/cosine_knn.hpp"
#include "sparse_search.cuh"

namespace recfuse::cuda {

/// neighbour_topk() on a device: a query adds up the lists of its neighbours.
template <class Device>
class NeighbourLists {
 public:
  NeighbourLists(Device& device, const NeighbourTopkArgs& args, const SparseLimits& limits = {})
      : device_(device),
        args_(args),
        search_(device, limits),
        k_(std::clamp<std::int64_t>(args.k, 1, std::max<std::int64_t>(args.neighbours.cols, 1))) {}

  void run(const TopkOut& out) {
    validate(args_, out);
    if (args_.queries.rows == 0) return;
    with_memory_of<Device>("neighbour_topk", "histories, neighbours, filters and the lists", [&] {
      if (args_.normalise) return run_with<OrderedSums<MeanTerms>>(out);
      run_with<OrderedSums<ProductTerms>>(out);
    });
  }

 private:
  template <class Sums>
  void run_with(const TopkOut& out) {
    FoundLists<Device> found(device_, out);
    const DeviceRows<Device> queries(device_, args_.queries);
    const auto make_lists = [&]<class Id>(std::int64_t width) {
      return DeviceLists<Device, float, Id>(device_, DeviceRows<Device>(device_, args_.neighbours), false, width,
                                            Unchanged{});
    };
    const auto allowed = allowed_bits(device_, args_, args_.neighbours.cols);
    const BatchFilters<Device> filters(device_, args_, 0, args_.queries.rows, allowed);
    const Similarity how{nullptr, nullptr, 0, 1, 1, false, false};
    const std::vector<char> all(static_cast<std::size_t>(args_.queries.rows), 1);
    search_.template run<Sums>({queries.view(), how, filters.view(), k_}, args_.neighbours.cols, make_lists, all,
                               found.view());
    found.read(out);
  }

  Device& device_;
  NeighbourTopkArgs args_;
  SparseSearch<Device> search_;
  std::int64_t k_;
};

}  // namespace recfuse::cuda
