#include "device.cuh"
#include "recfuse/cuda/fuse_topk.hpp"
#include "sharded_search.cuh"

namespace recfuse::cuda {

struct FusedIndex::State {
  ShardedSearch<Gpu> search;
};

FusedIndex::FusedIndex(const FusedItemsArgs& args, const Placement& placement, std::span<const int> devices)
    : state_(new State{ShardedSearch<Gpu>(devices, args, placement)}) {}
FusedIndex::~FusedIndex() = default;
FusedIndex::FusedIndex(FusedIndex&&) noexcept = default;
FusedIndex& FusedIndex::operator=(FusedIndex&&) noexcept = default;

std::int64_t FusedIndex::n_items() const { return state_->search.n_items(); }
std::int64_t FusedIndex::n_modalities() const { return state_->search.n_modalities(); }
SearchPlan FusedIndex::plan() const { return state_->search.plan(); }

void FusedIndex::topk(const FuseTopkArgs& args, const TopkOut& out, MatrixView<double> parts,
                      const Placement& placement) const {
  state_->search.topk(args, out, parts, placement);
}

void FusedIndex::score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                             MatrixView<double> parts, const Placement& placement) const {
  state_->search.score_pairs(args, pairs, out, parts, placement);
}

void FusedIndex::rank_pairs(const FuseTopkArgs& args, const CsrView& pairs, const PairRanks& out,
                            const Placement& placement) const {
  state_->search.rank_pairs(args, pairs, out, placement);
}

}  // namespace recfuse::cuda
