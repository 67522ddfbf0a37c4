// An epoch: users, then items. Nothing is read from the device before its end, so that its launches are recorded once
// and replayed (a CUDA graph): what starting some dozens of kernels takes is not for every epoch to pay.
#pragma once

#include <cstdint>

#include "als_half_step.cuh"
#include "als_memory.cuh"
#include "als_side.cuh"

namespace recfuse::cuda {

/// Of users and items that stay where they are. Eigenvectors of a Gram matrix the host finds as a part of it.
template <class Device>
class AlsEpoch {
 public:
  using Side = AlsSideOnDevice<Device>;

  AlsEpoch(Device& device, const AlsParams& params, double mean, const AlsLimits& limits, Side& users, Side& items)
      : device_(device),
        users_(users),
        items_(items),
        memory_(device),
        half_(device, params, mean, limits, memory_),
        of_users_(device, users),
        of_items_(device, items) {}
  AlsEpoch(const AlsEpoch&) = delete;
  AlsEpoch& operator=(const AlsEpoch&) = delete;

  /// Returns how many rows were solved in float64. Throws std::domain_error, which names the first row that could not
  /// be.
  std::int64_t run() {
    if (!recorded_) {
      memory_.prepare([&] { launch(); });
      launches_ = device_.record([&] { launch(); });
      recorded_ = true;
    }
    launches_.replay(device_);
    const std::int64_t of_users = half_.finish(users_, of_users_);
    return of_users + half_.finish(items_, of_items_);
  }

 private:
  void launch() {
    memory_.restart();
    half_.gram(items_, gram_);
    half_.launch(items_, users_, gram_, of_users_);
    half_.gram(users_, gram_);
    // Where users failed, items stay as they are.
    half_.launch(users_, items_, gram_, of_items_, &of_users_);
  }

  Device& device_;
  Side &users_, &items_;
  WorkMemory<Device> memory_;
  AlsHalfStep<Device> half_;
  Failures<Device> of_users_, of_items_;
  Gram<Device> gram_;
  typename Device::Recording launches_;
  bool recorded_ = false;
};

}  // namespace recfuse::cuda
