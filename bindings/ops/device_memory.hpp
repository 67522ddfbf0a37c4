// What a search takes of a device's memory: asked of the CPU's module, for there may be no device at hand.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <numeric>
#include <optional>
#include <vector>

#include "recfuse/device_memory.hpp"

namespace recfuse::bindings {

inline pybind11::tuple planned_on_device(std::int64_t n_queries, std::int64_t n_items,
                                         const std::vector<std::int64_t>& dims, std::int64_t k,
                                         std::optional<std::int64_t> free_bytes) {
  using namespace pybind11::literals;
  const std::int64_t dim = std::accumulate(dims.begin(), dims.end(), std::int64_t{0});
  ItemSizes sizes{n_items, dim, static_cast<std::int64_t>(dims.size()), 0, dim};
  for (const std::int64_t width : dims) sizes.image_dim += image_columns(width);
  const DevicePlan plan = plan_device_memory(sizes, {}, free_bytes.value_or(kUnlimitedBytes), {n_queries, k});
  pybind11::list buffers;
  for (const auto& buffer : plan.buffers) {
    buffers.append(pybind11::make_tuple(buffer.name, buffer.n_bytes, buffer.phase));
  }
  pybind11::dict blocks("queries"_a = plan.queries);
  blocks["queries whose every item is scored"] = plan.scored;
  if (plan.items.streamed) {
    blocks["blocks of items, streamed"] = plan.items.n_blocks;
    blocks["items per block"] = plan.items.block_items;
  }
  return pybind11::make_tuple(buffers, blocks);
}

inline void bind_device_memory(pybind11::module_& m) {
  using namespace pybind11::literals;
  m.def("plan_device_memory", &planned_on_device, "n_queries"_a, "n_items"_a, "dims"_a, "k"_a, "free_bytes"_a);
}

}  // namespace recfuse::bindings
