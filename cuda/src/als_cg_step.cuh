// One half-step by conjugate gradients: which rows go to which kernel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "als_cg.cuh"
#include "als_memory.cuh"
#include "als_side.cuh"

namespace recfuse::cuda {

/// Calls f with the CgRow that holds rows of so many columns.
template <class F>
void for_cg_width(int width, const F& f) {
  if (width <= 64) return f(std::type_identity<CgRow<8, 2>>{});
  if (width <= 128) return f(std::type_identity<CgRow<8, 4>>{});
  if (width <= 256) return f(std::type_identity<CgRow<8, 8>>{});
  if (width <= 1024) return f(std::type_identity<CgRow<32, 8>>{});
  f(std::type_identity<CgRow<32, 16>>{});
}

template <class Device>
class CgHalfStep {
 public:
  using Side = AlsSideOnDevice<Device>;

  CgHalfStep(Device& device, WorkMemory<Device>& memory, const AlsLimits& limits, const CgSystems& systems)
      : device_(device), memory_(memory), limits_(limits), systems_(systems) {}

  /// Moves all rows of `side` from where they are.
  void move(const Side& side) {
    for_cg_width(systems_.width, [&](auto row) {
      using Row = typename decltype(row)::type;
      for (std::int64_t first = 0; first < side.n_long;) first = move_long<Row>(side, first);
      const std::int64_t n_team = side.longer_than(limits_.team_row);
      move_some<Row, 8>(side, side.n_long, std::max(n_team, side.n_long));
      move_some<Row, 1>(side, std::max(n_team, side.n_long), side.rows);
    });
  }

 private:
  template <class Row, int kTeam>
  void move_some(const Side& side, std::int64_t first, std::int64_t end) {
    using Rows = CgRows<Row, kTeam>;
    constexpr std::int64_t kMostBlocks = 1 << 20;
    const std::int64_t n_blocks = std::min((end - first + Rows::kAtOnce - 1) / Rows::kAtOnce, kMostBlocks);
    device_.launch(Rows{systems_, side.order_there.data() + first, end - first, static_cast<int>(n_blocks)}, n_blocks,
                   1, Rows::shared_bytes());
  }

  /// Rows from place `first` on, as many as there is room for; returns where the next begin.
  template <class Row>
  std::int64_t move_long(const Side& side, std::int64_t first) {
    const std::int64_t room =
        std::max<std::int64_t>(1, limits_.parts_bytes / static_cast<std::int64_t>(Row::kSums * sizeof(float)));
    const LongRows long_rows = side.long_rows(first, room, limits_.long_row);
    const std::int64_t n_rows = long_rows.end - first;
    const auto n_parts = static_cast<std::int64_t>(long_rows.parts.size());
    const auto columns = static_cast<std::size_t>(n_rows * Row::kColumns);
    const Part* const parts = memory_.constant(std::span<const Part>(long_rows.parts));
    const std::int32_t* const places = memory_.constant(std::span<const std::int32_t>(long_rows.places));
    const std::int64_t* const bounds = memory_.constant(std::span<const std::int64_t>(long_rows.bounds));
    const typename WorkMemory<Device>::Scope scope(memory_);
    float* const sums = memory_.template take<float>(static_cast<std::size_t>(n_parts * Row::kSums));
    const CgStates states{memory_.template take<float>(columns), memory_.template take<float>(columns),
                          memory_.template take<float>(static_cast<std::size_t>(3 * n_rows))};
    const std::int32_t* const order = side.order_there.data() + first;
    for (int pass = 0; pass <= systems_.steps; ++pass) {
      device_.launch(CgPass<Row>{systems_, states, parts, places, order, pass, sums}, n_parts, 1,
                     CgPass<Row>::shared_bytes());
      device_.launch(CgAdvance<Row>{systems_, states, order, bounds, sums, pass}, n_rows, 1,
                     CgAdvance<Row>::shared_bytes());
    }
    return long_rows.end;
  }

  Device& device_;
  WorkMemory<Device>& memory_;
  const AlsLimits& limits_;
  const CgSystems systems_;
};

}  // namespace recfuse::cuda
