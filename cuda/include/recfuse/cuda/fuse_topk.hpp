// Fused retrieval on an NVIDIA GPU: the functions of recfuse::FusedIndex, and its bytes.
#pragma once

#include <memory>
#include <span>

#include "recfuse/cuda/device.hpp"
#include "recfuse/fuse_topk.hpp"

namespace recfuse::cuda {

/// recfuse::FusedIndex with its items in the memory of a device.
/// Throws what that throws, DeviceError and DeviceOutOfMemory.
class FusedIndex {
 public:
  explicit FusedIndex(const FusedItemsArgs& args);
  ~FusedIndex();
  FusedIndex(FusedIndex&&) noexcept;
  FusedIndex& operator=(FusedIndex&&) noexcept;

  std::int64_t n_items() const;
  std::int64_t n_modalities() const;
  SearchPlan plan() const;
  void topk(const FuseTopkArgs& args, const TopkOut& out, MatrixView<double> parts = {}) const;
  void score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                   MatrixView<double> parts = {}) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace recfuse::cuda
