// Fused retrieval on an NVIDIA GPU: the functions of recfuse::FusedIndex, and its bytes.
#pragma once

#include <memory>
#include <span>

#include "recfuse/cuda/device.hpp"
#include "recfuse/cuda/memory.hpp"
#include "recfuse/fuse_topk.hpp"

namespace recfuse::cuda {

/// recfuse::FusedIndex with its items in the memory of one device or several, which have a range of them each.
///
/// Items and queries may be on one of the devices already: a Placement says which are. Results may be, too: `out` and
/// `parts` are host or device memory alike. The index works on streams of its own, which wait for those of the
/// Placement; when a call returns its results are complete for every stream.
/// Throws what that throws, DeviceError and DeviceOutOfMemory; both say which device failed. The others stay usable.
class FusedIndex {
 public:
  explicit FusedIndex(const FusedItemsArgs& args, const Placement& placement = {},
                      std::span<const int> devices = kFirst);
  ~FusedIndex();
  FusedIndex(FusedIndex&&) noexcept;
  FusedIndex& operator=(FusedIndex&&) noexcept;

  std::int64_t n_items() const;
  std::int64_t n_modalities() const;
  SearchPlan plan() const;
  void topk(const FuseTopkArgs& args, const TopkOut& out, MatrixView<double> parts = {},
            const Placement& placement = {}) const;
  void score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out, MatrixView<double> parts = {},
                   const Placement& placement = {}) const;
  void rank_pairs(const FuseTopkArgs& args, const CsrView& pairs, const PairRanks& out,
                  const Placement& placement = {}) const;

 private:
  static constexpr int kFirst[1] = {0};
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace recfuse::cuda
