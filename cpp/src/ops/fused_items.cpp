#include "ops/fused_items.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "isa/dispatch.hpp"
#include "parallel_for.hpp"
#include "recfuse/canonical.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kRowsPerChunk = 4096;

float round_up(double x) {
  const float f = static_cast<float>(x);
  return f >= x ? f : std::nextafter(f, std::numeric_limits<float>::infinity());
}

}  // namespace

FusedItems::FusedItems(const FusedItemsArgs& args)
    : matrices_(args.items.begin(), args.items.end()), names_(args.names.begin(), args.names.end()), args_(args) {
  args_.items = matrices_;  // the spans of the caller may be gone after this call
  args_.names = names_;
  validate(args_);
  for (const auto& matrix : matrices_) total_dim_ += matrix.cols;
  PresenceGroups presence = presence_groups(args_.present, n_items(), matrices_.size());
  groups_ = std::move(presence.groups);
  group_of_ = std::move(presence.group_of);
  measure_norms();
  args_.present = {};  // the groups have it now
}

void FusedItems::measure_norms() {
  const auto size = static_cast<std::size_t>(n_items()) * matrices_.size();
  inverse_norms_.resize(size);
  screen_norms_.resize(size);
  irregular_.assign(static_cast<std::size_t>(n_items()), 0);
  const auto& kernels = kernel_table();
  const std::int64_t n_chunks = (n_items() + kRowsPerChunk - 1) / kRowsPerChunk;
  parallel_for(n_chunks, args_.num_threads, [&](std::int64_t chunk, int) {
    const std::int64_t end = std::min(n_items(), (chunk + 1) * kRowsPerChunk);
    for (std::int64_t i = chunk * kRowsPerChunk; i < end; ++i) {
      const auto id = static_cast<std::int32_t>(i);
      const auto& present = groups_[static_cast<std::size_t>(group_of(id))].present;
      for (int m = 0; m < n_modalities(); ++m) {
        if (!present[static_cast<std::size_t>(m)]) continue;
        const float* x = matrix(m).row(i);
        const double squared = kernels.canonical_dot(x, x, matrix(m).cols);
        const double norm = std::sqrt(squared);
        if (!in_screen_range(norm)) irregular_[static_cast<std::size_t>(i)] = 1;  // NaN and infinity too
        inverse_norms_[offset(id, m)] = inverse_norm(squared);
        screen_norms_[offset(id, m)] = cosine() ? (norm > 0 ? 1.0F : 0.0F) : round_up(norm);
      }
    }
  });
}

ScanOrder FusedItems::scan_order(std::int64_t tile_items) const {
  std::vector<std::int32_t> all(static_cast<std::size_t>(n_items()));
  std::iota(all.begin(), all.end(), 0);
  ScanOrder order = scan_order(tile_items, all);
  order.scattered = false;
  return order;
}

ScanOrder FusedItems::scan_order(std::int64_t tile_items, std::span<const std::int32_t> allowed) const {
  ScanOrder order;
  order.scattered = true;
  order.ids.resize(allowed.size());
  std::size_t n_regular = 0;
  for (const std::int32_t id : allowed) {
    order.ids[n_regular] = id;
    n_regular += irregular(id) ? 0 : 1;
    if (irregular(id)) order.irregular_ids.push_back(id);
  }
  order.ids.resize(n_regular);
  std::vector<std::size_t> ends(groups_.size(), n_regular);
  if (groups_.size() > 1) ends = sort_by_group(order.ids);
  std::int64_t begin = 0;
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    const auto stop = static_cast<std::int64_t>(ends[group]);
    for (; begin < stop; begin = order.tiles.back().end) {
      order.tiles.push_back({begin, std::min(begin + tile_items, stop), static_cast<int>(group)});
      for (int m = 0; m < n_modalities(); ++m) {
        float largest = 0;
        for (std::int64_t i = begin; i < order.tiles.back().end; ++i) {
          largest = std::max(largest, screen_norm(order.ids[static_cast<std::size_t>(i)], m));
        }
        order.tile_norms.push_back(largest);
      }
    }
  }
  return order;
}

/// Leaves the ids of a group in their order; returns where the groups end.
std::vector<std::size_t> FusedItems::sort_by_group(std::vector<std::int32_t>& ids) const {
  std::vector<std::size_t> ends(groups_.size() + 1, 0);
  for (const std::int32_t id : ids) ++ends[static_cast<std::size_t>(group_of(id)) + 1];
  std::partial_sum(ends.begin(), ends.end(), ends.begin());
  const std::vector<std::int32_t> before = ids;
  for (const std::int32_t id : before) ids[ends[static_cast<std::size_t>(group_of(id))]++] = id;
  ends.pop_back();  // every beginning has become the end
  return ends;
}

void FusedItems::pack(const kernels::KernelTable& kernels, const ScanOrder& order, const Tile& tile, std::int64_t begin,
                      std::int64_t end, float* panel) const {
  constexpr int kMaxPanelItems = 64;
  std::array<const float*, kMaxPanelItems> rows{};
  std::array<float, kMaxPanelItems> scales{};
  const int n_rows = static_cast<int>(end - begin);
  for (int m = 0; m < n_modalities(); ++m) {
    const bool present = groups_[static_cast<std::size_t>(tile.group)].present[static_cast<std::size_t>(m)];
    for (int r = 0; r < n_rows; ++r) {
      const std::int32_t id = order.ids[static_cast<std::size_t>(begin + r)];
      rows[static_cast<std::size_t>(r)] = present ? matrix(m).row(id) : nullptr;
      scales[static_cast<std::size_t>(r)] = cosine() ? static_cast<float>(inverse_norm_of(id, m)) : 1.0F;
    }
    kernels.pack_panel(rows.data(), scales.data(), n_rows, kernels.nr, matrix(m).cols, panel);
    panel += kernels.nr * matrix(m).cols;
  }
}

}  // namespace recfuse
