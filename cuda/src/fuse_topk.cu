#include "device.cuh"
#include "fused_search.cuh"
#include "recfuse/cuda/fuse_topk.hpp"

namespace recfuse::cuda {

struct FusedIndex::State {
  Gpu gpu;
  FusedSearch<Gpu> search;

  State(const FusedItemsArgs& args, const Placement& placement)
      : search(gpu.receive(args.items, placement), args, {}, placement.on_device) {}
};

FusedIndex::FusedIndex(const FusedItemsArgs& args, const Placement& placement) {
  const Entered here(Gpu::kIndex);
  state_ = std::make_unique<State>(args, placement);
}
FusedIndex::~FusedIndex() = default;
FusedIndex::FusedIndex(FusedIndex&&) noexcept = default;
FusedIndex& FusedIndex::operator=(FusedIndex&&) noexcept = default;

std::int64_t FusedIndex::n_items() const { return state_->search.n_items(); }
std::int64_t FusedIndex::n_modalities() const { return state_->search.n_modalities(); }
SearchPlan FusedIndex::plan() const { return state_->search.plan(); }

void FusedIndex::topk(const FuseTopkArgs& args, const TopkOut& out, MatrixView<double> parts,
                      const Placement& placement) const {
  const Entered here(Gpu::kIndex);
  state_->gpu.receive(args.queries, placement);
  state_->search.topk(args, out, parts, placement.on_device);
}

void FusedIndex::score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                             MatrixView<double> parts, const Placement& placement) const {
  const Entered here(Gpu::kIndex);
  state_->gpu.receive(args.queries, placement);
  state_->search.score_pairs(args, pairs, out, parts, placement.on_device);
}

}  // namespace recfuse::cuda
