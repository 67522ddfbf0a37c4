// The rows of a sparse matrix that are most similar to each of its rows, on any device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

#include "recfuse/cosine_knn.hpp"
#include "sparse_search.cuh"

namespace recfuse::cuda {

/// cosine_knn() on a device.
template <class Device>
class SimilarRows {
 public:
  SimilarRows(Device& device, const CosineKnnArgs& args, const SparseLimits& limits = {})
      : device_(device), args_(args), search_(device, limits), k_(std::min(args.k, args.matrix.rows)) {}

  void run(const TopkOut& out) {
    validate(args_, out);
    if (args_.matrix.rows == 0) return;
    const CosineFacts facts = cosine_facts(args_);
    with_memory_of<Device>("cosine_knn", "the matrix, its transpose and the lists", [&] {
      const DeviceRows<Device> matrix(device_, args_.matrix, facts.counting && facts.ones);
      if (facts.counting) return run_with<CountSums>(matrix, facts, CountOf{facts.scale}, out);
      if (args_.norm == Norm::kCorated) return run_with<OrderedSums<CoratedTerms>>(matrix, facts, Unchanged{}, out);
      run_with<OrderedSums<CosineTerms>>(matrix, facts, Unchanged{}, out);
    });
  }

 private:
  template <class T>
  using Array = typename Device::template Array<T>;

  template <class Sums, class Encode>
  void run_with(const DeviceRows<Device>& matrix, const CosineFacts& facts, const Encode& encode, const TopkOut& out) {
    const std::int64_t width = search_.template strip_width<Sums>(matrix.n_rows(), k_);
    const DeviceLists<Device, typename Sums::Value> lists(device_, matrix, true, width, encode);
    const Array<double> squared(device_, std::span<const double>(facts.squared));
    const Similarity how{squared.data(),
                         args_.shrinkage,
                         facts.scale,
                         static_cast<int>(std::min<std::int64_t>(args_.min_support, std::numeric_limits<int>::max())),
                         args_.norm == Norm::kCorated,
                         true};
    search_.template run<Sums>({matrix.view(), how, {}, k_}, lists, out);
  }

  Device& device_;
  CosineKnnArgs args_;
  SparseSearch<Device> search_;
  std::int64_t k_;  // no row has more neighbours than there are rows
};

}  // namespace recfuse::cuda
