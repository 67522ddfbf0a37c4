// Queries of one call in the memory of a device, and what a search of theirs needs there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "candidates.cuh"
#include "items.cuh"
#include "prepare.cuh"
#include "recfuse/fuse_topk.hpp"
#include "vectors.cuh"

namespace recfuse::cuda {

/// Queries [first, last), and what is known of them.
template <class Device>
struct Batch {
  Batch(Device& device, const Catalogue<Device>& catalogue, const FuseTopkArgs& args, std::int64_t first,
        std::int64_t last, const std::vector<char>& places)
      : n(last - first),
        n_weights(args.weights.rows == 1 ? 1 : n),
        matrices(upload(device, args.queries, first, last, places)),
        weights(device, std::span(args.weights.row(args.weights.rows == 1 ? 0 : first),
                                  static_cast<std::size_t>(n_weights * args.weights.cols))),
        inverse_norms(device, static_cast<std::size_t>(n) * catalogue.views.size()),
        factors(device, static_cast<std::size_t>(n * catalogue.n_groups)),
        rule{args.fusion, args.missing} {}

  /// Others of the same shape in their place; of a batch with copies of its own.
  void write(const FuseTopkArgs& args, std::int64_t first, const std::vector<char>& places) {
    for (std::size_t m = 0; m < matrices.copies.size(); ++m) {
      write_rows(matrices.copies[m], args.queries[m], first, first + n, place_of(places, m));
    }
    weights.write(std::span(args.weights.row(n_weights == 1 ? 0 : first), weights.size()));
  }

  Queries view() const {
    return {matrices.view(), n, rule, weights.data(), n_weights, inverse_norms.data(), factors.data()};
  }

  std::int64_t n, n_weights;
  DeviceMatrices<Device> matrices;
  typename Device::template Array<double> weights, inverse_norms, factors;
  Rule rule;
};

/// What screening a batch needs beside it.
template <class Device>
struct Screening {
  template <class T>
  using Array = typename Device::template Array<T>;

  /// `counts_elsewhere`: memory for the counts of candidates, or null.
  Screening(Device& device, const Catalogue<Device>& catalogue, std::int64_t n, std::int64_t room, int tile_queries,
            std::int32_t* counts_elsewhere = nullptr)
      : bounds(device, static_cast<std::size_t>(n) * catalogue.views.size()),
        scales(device, static_cast<std::size_t>(n)),
        image(device, static_cast<std::size_t>((n + tile_queries - 1) / tile_queries * tile_queries) *
                          static_cast<std::size_t>(catalogue.n_slabs()) * kSlab),
        lower(device, static_cast<std::size_t>(n * room)),
        upper(device, static_cast<std::size_t>(n * room)),
        ids(device, static_cast<std::size_t>(n * room)),
        own_counts(device, counts_elsewhere == nullptr ? static_cast<std::size_t>(n) : 0),
        counts(counts_elsewhere == nullptr ? own_counts.data() : counts_elsewhere),
        thresholds(device, static_cast<std::size_t>(n)),
        capacity(static_cast<int>(room)) {
    image.clear();  // rows beyond the queries
  }

  Candidates candidates() { return {capacity, lower.data(), upper.data(), ids.data(), counts, thresholds.data()}; }

  Array<QueryBound> bounds;
  Array<double> scales;
  Array<half_bits> image;
  Array<float> lower, upper;
  Array<std::int32_t> ids, own_counts;
  std::int32_t* counts;
  Array<float> thresholds;
  int capacity;
};

/// A bit per item that is on the list of all queries; empty where there is none.
template <class Device, class Args>
typename Device::template Array<std::uint32_t> allowed_bits(Device& device, const Args& args, std::int64_t n_items) {
  if (!args.has_allow_ids) return {};
  std::vector<std::uint32_t> bits(static_cast<std::size_t>(n_items / 32 + 1), 0);
  for (const std::int32_t id : args.allow_ids) bits[static_cast<std::size_t>(id / 32)] |= 1U << (id % 32);
  return {device, std::span<const std::uint32_t>(bits)};
}

/// Filters of queries [first, last).
template <class Device>
class BatchFilters {
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  /// `allowed`: a bit per item, or empty.
  template <class Args>
  BatchFilters(Device& device, const Args& args, std::int64_t first, std::int64_t last,
               const Array<std::uint32_t>& allowed)
      : exclude_(device, args.exclude, first, last), allow_(device, args.allow, first, last), allowed_(allowed) {}

  Filters view() const {
    return {exclude_.indptr.data(), exclude_.indices.data(), allow_.indptr.data(), allow_.indices.data(),
            allowed_.data()};
  }

 private:
  struct DeviceCsr {
    DeviceCsr(Device& device, const CsrView& csr, std::int64_t first, std::int64_t last) {
      if (!csr.given()) return;
      const auto nnz = static_cast<std::size_t>(csr.indptr[last] - csr.indptr[first]);
      indptr = {device, std::span(csr.indptr + first, static_cast<std::size_t>(last - first + 1))};
      indices = {device, std::span(csr.row_indices(first), nnz)};
    }
    Array<std::int64_t> indptr;
    Array<std::int32_t> indices;
  };

  DeviceCsr exclude_, allow_;
  const Array<std::uint32_t>& allowed_;
};

}  // namespace recfuse::cuda
