// The short rows of a half-step: which of them a warp has, and which a block.
#pragma once

#include <algorithm>
#include <cstdint>

#include "als_dual.cuh"
#include "als_side.cuh"

namespace recfuse::cuda {

template <class Device>
class DualHalfStep {
 public:
  using Side = AlsSideOnDevice<Device>;

  DualHalfStep(Device& device, const DualSystems& systems) : device_(device), systems_(systems) {}

  /// Rows of more entries than this do not fit in shared memory.
  static int longest(const Device& device, int width) {
    int n = width;
    while (n > 0 && DualShape{n, width}.bytes() > device.most_shared_bytes()) n -= kTile;
    return std::max(n, 0);
  }

  /// Solves the rows of `side` from place `first` on, all of at most `longest` entries, to systems.x.
  void solve(const Side& side, std::int64_t first, int longest) {
    const std::int64_t begin = first;
    // Rows that differ by a factor of two take what the longest of them takes.
    for (; first < side.rows; longest /= 2) {
      const std::int64_t end = longest == 0 ? side.rows : side.longer_than(longest / 2);
      if (end <= first) continue;
      const DualShape shape{std::max(longest, 1), systems_.width};
      DualSystems systems = systems_;
      systems.x += (first - begin) * systems.width;
      const bool by_warps = longest <= kWarp && 2 * DualRowsByWarps::shared_bytes(shape) <= device_.most_shared_bytes();
      const std::int32_t* const order = side.order_there.data() + first;
      if (by_warps) {
        launch(DualRowsByWarps{systems, shape, order, end - first});
      } else {
        launch(DualRowsByBlocks{systems, shape, order, end - first});
      }
      first = end;
    }
  }

 private:
  template <class Body>
  void launch(const Body& body) {
    device_.launch(body, Body::blocks(body.n), 1, Body::shared_bytes(body.shape));
  }

  Device& device_;
  const DualSystems systems_;
};

}  // namespace recfuse::cuda
