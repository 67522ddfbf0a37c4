// The rows of a sparse matrix that are most similar to each of its rows, on any device.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "dense_columns.cuh"
#include "recfuse/cosine_knn.hpp"
#include "sparse_search.cuh"

namespace recfuse::cuda {

/// cosine_knn() on a device.
template <class Device>
class SimilarRows {
 public:
  SimilarRows(Device& device, const CosineKnnArgs& args, const SparseLimits& limits = {})
      : device_(device),
        args_(args),
        limits_(limits),
        search_(device, limits),
        k_(std::min(args.k, args.matrix.rows)) {}

  void run(const TopkOut& out) {
    validate(args_, out);
    if (args_.matrix.rows == 0) return;
    const CosineFacts facts = cosine_facts(args_);
    with_memory_of<Device>("cosine_knn", "the matrix, its transpose and the lists", [&] {
      const DeviceRows<Device> matrix(device_, args_.matrix, facts.counting && facts.ones);
      const Array<double> squared(device_, std::span<const double>(facts.squared));
      FoundLists<Device> found(device_, out);
      const Array<float> norms(device_, std::span<const float>(norms_of(facts)));
      search({matrix, facts, squared.data(), norms.data()}, found.view());
      found.read(out);
    });
  }

 private:
  template <class T>
  using Array = typename Device::template Array<T>;

  struct Problem {
    const DeviceRows<Device>& matrix;
    const CosineFacts& facts;
    const double* squared;
    const float* norms;
  };

  static std::vector<float> norms_of(const CosineFacts& facts) {
    std::vector<float> norms(facts.counting ? facts.squared.size() : 0);
    std::transform(facts.squared.begin(), facts.squared.begin() + static_cast<std::ptrdiff_t>(norms.size()),
                   norms.begin(), [](double squared) { return static_cast<float>(std::sqrt(squared)); });
    return norms;
  }

  void search(const Problem& problem, const Lists& found) {
    const CosineFacts& facts = problem.facts;
    const std::vector<char> all(static_cast<std::size_t>(args_.matrix.rows), 1);
    if (facts.counting) {
      std::optional<DenseColumns<Device>> dense;
      if (limits_.dense.may_pay(problem.matrix.n_rows(), args_.matrix.nnz())) {
        dense.emplace(device_, problem.matrix, facts.scale, limits_.dense);
      }
      run_with<CountSums>(problem, CountOf{facts.scale}, all, found, dense ? &*dense : nullptr);
    } else if (args_.norm == Norm::kCorated) {
      run_with<OrderedSums<CoratedTerms>>(problem, Unchanged{}, all, found);
    } else {
      const std::vector<char> left = screened(problem, found);
      if (std::find(left.begin(), left.end(), 1) == left.end()) return;
      run_with<OrderedSums<CosineTerms>>(problem, Unchanged{}, left, found);
    }
  }

  /// A mark for each row whose list is not there yet.
  std::vector<char> screened(const Problem& problem, const Lists& found) {
    const std::vector<char> all(static_cast<std::size_t>(args_.matrix.rows), 1);
    for (std::int64_t row = 0; row < args_.matrix.rows; ++row) {
      if (args_.matrix.row_size(row) > limits_.screened_entries) return all;
    }
    const ShareOf share{problem.squared};
    const bool tells = problem.facts.positive && args_.min_support == 1;  // a sum, whether there was a term
    std::vector<char> left(all.size());
    for (const std::int32_t row : tells ? run_with<FixedSums<false>>(problem, share, all, found)
                                        : run_with<FixedSums<true>>(problem, share, all, found)) {
      left[static_cast<std::size_t>(row)] = 1;
    }
    return left;
  }

  template <class Sums, class Encode>
  std::vector<std::int32_t> run_with(const Problem& problem, const Encode& encode, const std::vector<char>& only,
                                     const Lists& found, const DenseColumns<Device>* dense = nullptr) {
    const auto make_lists = [&]<class Id>(std::int64_t width) {
      return DeviceLists<Device, typename Sums::Value, Id>(device_, problem.matrix, true, width, encode);
    };
    const Similarity how{problem.squared,
                         problem.norms,
                         args_.shrinkage,
                         problem.facts.scale,
                         static_cast<int>(std::min<std::int64_t>(args_.min_support, std::numeric_limits<int>::max())),
                         args_.norm == Norm::kCorated,
                         true};
    return search_.template run<Sums>({problem.matrix.view(), how, {}, k_}, problem.matrix.n_rows(), make_lists, only,
                                      found, dense);
  }

  Device& device_;
  CosineKnnArgs args_;
  SparseLimits limits_;
  SparseSearch<Device> search_;
  std::int64_t k_;  // no row has more neighbours than there are rows
};

}  // namespace recfuse::cuda
