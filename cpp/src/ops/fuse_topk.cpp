#include "recfuse/fuse_topk.hpp"

#include <memory>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/float_screen.hpp"
#include "ops/search.hpp"
#include "parallel_for.hpp"
#include "validate.hpp"

namespace recfuse {

namespace {

void search_in_float32(const FusedItems& items, const ScanOrder& order, const FuseTopkArgs& args, const TopkOut& out,
                       const MatrixView<double>& parts) {
  const Queries queries(items, args, order);
  const FloatScreen screen(queries, order);
  const Filters filters{args.exclude, args.allow};
  Search(screen, queries, filters).run(out, parts);
}

}  // namespace

struct FusedIndex::State {
  FusedItems items;
  ScanOrder all;  // the scan without an allow-list, made once

  explicit State(const FusedItemsArgs& args)
      : items(args), all(items.scan_order(FloatScreen::tile_items(items.total_dim()), nullptr)) {}
};

FusedIndex::FusedIndex(const FusedItemsArgs& args) : state_(std::make_unique<State>(args)) {}
FusedIndex::~FusedIndex() = default;
FusedIndex::FusedIndex(FusedIndex&&) noexcept = default;
FusedIndex& FusedIndex::operator=(FusedIndex&&) noexcept = default;

std::int64_t FusedIndex::n_items() const { return state_->items.n_items(); }
std::int64_t FusedIndex::n_modalities() const { return state_->items.n_modalities(); }

void FusedIndex::topk(const FuseTopkArgs& args, const TopkOut& out, MatrixView<double> parts) const {
  const FusedItems& items = state_->items;
  validate(args, items.args(), out, parts);
  if (!args.has_allow_ids) {
    search_in_float32(items, state_->all, args, out, parts);
    return;
  }
  std::vector<char> allowed(static_cast<std::size_t>(items.n_items()), 0);
  for (const std::int32_t id : args.allow_ids) allowed[static_cast<std::size_t>(id)] = 1;
  const ScanOrder order = items.scan_order(FloatScreen::tile_items(items.total_dim()), &allowed);
  search_in_float32(items, order, args, out, parts);
}

void FusedIndex::score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                             MatrixView<double> parts) const {
  const FusedItems& items = state_->items;
  validate_pairs(args, items.args(), pairs);
  const Queries queries(items, args, state_->all);
  const auto& kernels = kernel_table();
  parallel_for(pairs.rows, args.num_threads, [&](std::int64_t q, int) {
    for (std::int64_t j = pairs.indptr[q]; j < pairs.indptr[q + 1]; ++j) {
      const std::int64_t at = j - pairs.indptr[0];
      out[static_cast<std::size_t>(at)] =
          queries.score(kernels, q, pairs.indices[j], parts.data == nullptr ? nullptr : parts.row(at));
    }
  });
}

}  // namespace recfuse
