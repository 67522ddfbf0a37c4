// One half-step of iALS++: all blocks of the unknowns of all rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "als_block.cuh"
#include "als_memory.cuh"
#include "als_side.cuh"

namespace recfuse::cuda {

template <class Device>
class BlockHalfStep {
 public:
  using Side = AlsSideOnDevice<Device>;

  /// `systems` without room for predictions.
  BlockHalfStep(Device& device, WorkMemory<Device>& memory, const AlsLimits& limits, const BlockSystems& systems)
      : device_(device), memory_(memory), limits_(limits), systems_(systems) {}

  /// Moves all rows of `side` from where they are.
  void move(const Side& side) {
    systems_.predicted = memory_.template take<float>(static_cast<std::size_t>(side.nnz()));
    for (std::int64_t first = 0; first < side.n_long;) first = move_long(side, first);
    for_blocks([&](int first, const SystemShape& shape) {
      move_block(first, shape, side.order_there.data() + side.n_long, side.rows - side.n_long, nullptr, nullptr,
                 nullptr);
    });
  }

 private:
  template <class F>
  void for_blocks(const F& f) const {
    for (int first = 0; first < systems_.size; first += kBlockUnknowns) {
      f(first, SystemShape{std::min(kBlockUnknowns, systems_.size - first)});
    }
  }

  void move_block(int first, const SystemShape& shape, const std::int32_t* order, std::int64_t n, const float* parts,
                  const std::int64_t* bounds, float* moves) {
    const auto n_blocks = static_cast<int>(std::min<std::int64_t>(n, 1 << 30));
    device_.launch(MoveBlocks{systems_, first, shape, order, n, n_blocks, parts, bounds, moves}, n_blocks, 1,
                   MoveBlocks::Memory::bytes(shape));
  }

  /// Rows from place `first` on, as many as there is room for; returns where the next begin.
  std::int64_t move_long(const Side& side, std::int64_t begin) {
    const SystemShape largest{std::min(kBlockUnknowns, systems_.size)};
    const auto part_bytes = static_cast<std::int64_t>(sizeof(float)) * largest.elements();
    const LongRows rows = side.long_rows(begin, limits_.parts_bytes / part_bytes, limits_.long_row);
    const auto n_parts = static_cast<std::int64_t>(rows.parts.size());
    const Part* const parts = memory_.constant(std::span<const Part>(rows.parts));
    const std::int32_t* const places = memory_.constant(std::span<const std::int32_t>(rows.places));
    const std::int64_t* const bounds = memory_.constant(std::span<const std::int64_t>(rows.bounds));
    const typename WorkMemory<Device>::Scope scope(memory_);
    float* const sums = memory_.template take<float>(static_cast<std::size_t>(n_parts * largest.elements()));
    float* const moves = memory_.template take<float>(static_cast<std::size_t>((rows.end - begin) * kBlockUnknowns));
    const std::int32_t* const order = side.order_there.data() + begin;
    const auto predict = [&](int first, int n, const float* by) {
      device_.launch(PredictParts{systems_, parts, places, order, first, n, by}, n_parts, 1, 0);
    };
    predict(0, systems_.size, nullptr);
    for_blocks([&](int first, const SystemShape& shape) {
      device_.launch(BuildParts<true, BlockEntries>{{systems_, first}, shape, parts, sums}, n_parts, 1,
                     MoveBlocks::Memory::bytes(shape));
      move_block(first, shape, order, rows.end - begin, sums, bounds, moves);
      if (first + shape.size < systems_.size) predict(first, shape.size, moves);
    });
    return rows.end;
  }

  Device& device_;
  WorkMemory<Device>& memory_;
  const AlsLimits& limits_;
  BlockSystems systems_;
};

}  // namespace recfuse::cuda
