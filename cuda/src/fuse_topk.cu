#include "device.cuh"
#include "fused_search.cuh"
#include "recfuse/cuda/fuse_topk.hpp"

namespace recfuse::cuda {

struct FusedIndex::State {
  Gpu gpu{0};
  FusedSearch<Gpu> search;

  explicit State(const FusedItemsArgs& args) : search(gpu, args) {}
};

FusedIndex::FusedIndex(const FusedItemsArgs& args) : state_(std::make_unique<State>(args)) {}
FusedIndex::~FusedIndex() = default;
FusedIndex::FusedIndex(FusedIndex&&) noexcept = default;
FusedIndex& FusedIndex::operator=(FusedIndex&&) noexcept = default;

std::int64_t FusedIndex::n_items() const { return state_->search.n_items(); }
std::int64_t FusedIndex::n_modalities() const { return state_->search.n_modalities(); }
SearchPlan FusedIndex::plan() const { return state_->search.plan(); }

void FusedIndex::topk(const FuseTopkArgs& args, const TopkOut& out, MatrixView<double> parts) const {
  state_->gpu.enter();
  state_->search.topk(args, out, parts);
}

void FusedIndex::score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                             MatrixView<double> parts) const {
  state_->gpu.enter();
  state_->search.score_pairs(args, pairs, out, parts);
}

}  // namespace recfuse::cuda
