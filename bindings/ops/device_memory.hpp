// What a search takes of a device's memory: asked of the CPU's module, for there may be no device at hand.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "recfuse/als_memory.hpp"
#include "recfuse/device_memory.hpp"
#include "recfuse/sparse_memory.hpp"

namespace recfuse::bindings {

inline pybind11::list listed(const std::vector<DeviceBuffer>& buffers) {
  pybind11::list list;
  for (const auto& buffer : buffers) list.append(pybind11::make_tuple(buffer.name, buffer.n_bytes, buffer.phase));
  return list;
}

inline ItemSizes sizes_of(std::int64_t n_items, const std::vector<std::int64_t>& dims) {
  const std::int64_t dim = std::accumulate(dims.begin(), dims.end(), std::int64_t{0});
  ItemSizes sizes{n_items, dim, static_cast<std::int64_t>(dims.size()), 0, dim};
  for (const std::int64_t width : dims) sizes.image_dim += image_columns(width);
  return sizes;
}

inline pybind11::tuple listed(const DevicePlan& plan, const char* scored) {
  using namespace pybind11::literals;
  const pybind11::list buffers = listed(plan.buffers);
  pybind11::dict blocks("queries"_a = plan.queries);
  blocks[scored] = plan.scored;
  if (plan.items.streamed) {
    blocks["blocks of items, streamed"] = plan.items.n_blocks;
    blocks["items per block"] = plan.items.block_items;
  }
  return pybind11::make_tuple(buffers, blocks);
}

inline void bind_device_memory(pybind11::module_& m) {
  using namespace pybind11::literals;
  m.def(
      "plan_device_memory",
      [](std::int64_t n_queries, std::int64_t n_items, const std::vector<std::int64_t>& dims, std::int64_t k,
         std::optional<std::int64_t> free_bytes) {
        const std::int64_t free = free_bytes.value_or(kUnlimitedBytes);
        return listed(plan_device_memory(sizes_of(n_items, dims), {}, free, {n_queries, k}),
                      "queries whose every item is scored");
      },
      "n_queries"_a, "n_items"_a, "dims"_a, "k"_a, "free_bytes"_a);
  m.def(
      "plan_rank_pairs",
      [](std::int64_t n_queries, std::int64_t n_items, const std::vector<std::int64_t>& dims, std::int64_t n_pairs,
         std::int64_t n_excluded, std::optional<std::int64_t> free_bytes) {
        const std::int64_t free = free_bytes.value_or(kUnlimitedBytes);
        return listed(plan_rank_pairs(sizes_of(n_items, dims), {}, free, {n_queries, n_pairs, n_excluded}),
                      "queries whose pairs are scored");
      },
      "n_queries"_a, "n_items"_a, "dims"_a, "n_pairs"_a, "n_excluded"_a, "free_bytes"_a);
  // `values`: 0 ones, 1 whole, 2 positive, 3 any.
  m.def(
      "plan_cosine_knn",
      [](std::int64_t n_rows, std::int64_t n_columns, std::int64_t n_entries, std::int64_t k, int values,
         const std::string& norm, std::int64_t min_support) {
        return listed(plan_cosine_knn(
            {n_rows, n_columns, n_entries, k, static_cast<SparseValues>(values), norm_named(norm), min_support}));
      },
      "n_rows"_a, "n_columns"_a, "n_entries"_a, "k"_a, "values"_a, "norm"_a, "min_support"_a);
  m.def(
      "plan_als",
      [](std::int64_t n_users, std::int64_t n_items, std::int64_t n_entries, std::int64_t factors,
         const std::string& objective, const std::string& solver, bool biases, double frequency_scaling,
         std::int64_t dual_entries, std::int64_t multiprocessors, std::optional<std::int64_t> free_bytes,
         std::int64_t piece_entries) {
        const AlsParams params{.objective = objective_named(objective),
                               .solver = solver_named(solver),
                               .factors = factors,
                               .frequency_scaling = frequency_scaling,
                               .biases = biases,
                               .dual_entries = dual_entries};
        const AlsPlan plan = plan_als({n_users, n_items, n_entries, params}, {.multiprocessors = multiprocessors},
                                      {free_bytes.value_or(kUnlimitedBytes), piece_entries});
        pybind11::dict blocks;
        if (plan.streamed) {
          for (const auto& [name, piece] : {std::pair{"users", plan.users}, {"items", plan.items}}) {
            blocks[(std::string(name) + " per piece, streamed").c_str()] = piece.rows;
            blocks[(std::string("interactions per piece, by ") + name).c_str()] = piece.entries;
          }
        }
        return pybind11::make_tuple(listed(plan.buffers), blocks);
      },
      "n_users"_a, "n_items"_a, "n_entries"_a, "factors"_a, "objective"_a, "solver"_a, "biases"_a,
      "frequency_scaling"_a, "dual_entries"_a = -1, "multiprocessors"_a = DeviceShape{}.multiprocessors,
      "free_bytes"_a = pybind11::none(), "piece_entries"_a = AlsRoom{}.piece_entries);
  m.def(
      "plan_neighbour_topk",
      [](std::int64_t n_queries, std::int64_t n_rows, std::int64_t n_items, std::int64_t query_entries,
         std::int64_t n_entries, std::int64_t filter_bytes, std::int64_t k, bool normalise) {
        return listed(
            plan_neighbour_topk({n_queries, n_rows, n_items, query_entries, n_entries, filter_bytes, k, normalise}));
      },
      "n_queries"_a, "n_rows"_a, "n_items"_a, "query_entries"_a, "n_entries"_a, "filter_bytes"_a, "k"_a, "normalise"_a);
}

}  // namespace recfuse::bindings
