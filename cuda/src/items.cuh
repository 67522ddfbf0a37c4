// Items in the memory of a device: as the caller has them, and in tiles of float16.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "prepare.cuh"
#include "recfuse/cuda/memory.hpp"
#include "recfuse/device_memory.hpp"
#include "recfuse/fuse_topk.hpp"
#include "recfuse/presence.hpp"
#include "scan.cuh"
#include "vectors.cuh"

namespace recfuse::cuda {

/// A matrix per modality in the device's memory: a copy of what is elsewhere.
template <class Device>
struct DeviceMatrices {
  template <class T>
  using Array = typename Device::template Array<T>;

  std::vector<Array<float>> copies;
  Array<const float*> pointers;
  Array<std::int64_t> cols;

  Matrices view() const { return {pointers.data(), cols.data(), static_cast<int>(cols.size())}; }
};

/// Where a matrix is (Place); `places` may be empty.
inline Place place_of(const std::vector<char>& places, std::size_t m) {
  return m < places.size() ? static_cast<Place>(places[m]) : kOnHost;
}

/// Whether a matrix can be used where it is.
inline bool is_in_place(const std::vector<char>& places, std::size_t m, const MatrixView<const float>& view) {
  return place_of(places, m) == kHere && view.stride == view.cols;
}

/// Fills an array of the device with rows [first, last) of a matrix.
template <class Array>
void write_rows(Array& to, const MatrixView<const float>& view, std::int64_t first, std::int64_t last, Place place) {
  if (place == kOnPeer) {
    to.copy_rows_of_peer(view.row(first), last - first, view.cols, view.stride);
  } else {
    to.write_rows(view.row(first), last - first, view.cols, view.stride);
  }
}

/// Rows [first, last).
template <class Device>
DeviceMatrices<Device> upload(Device& device, std::span<const MatrixView<const float>> views, std::int64_t first,
                              std::int64_t last, const std::vector<char>& places) {
  DeviceMatrices<Device> result;
  std::vector<const float*> pointers;
  std::vector<std::int64_t> cols;
  for (std::size_t m = 0; m < views.size(); ++m) {
    const auto& view = views[m];
    cols.push_back(view.cols);
    if (is_in_place(places, m, view)) {
      pointers.push_back(view.row(first));
      continue;
    }
    result.copies.emplace_back(device, static_cast<std::size_t>((last - first) * view.cols));
    write_rows(result.copies.back(), view, first, last, place_of(places, m));
    pointers.push_back(result.copies.back().data());
  }
  result.pointers = {device, std::span<const float* const>(pointers)};
  result.cols = {device, std::span<const std::int64_t>(cols)};
  return result;
}

/// Some of an index's items: [first, last).
struct ItemRange {
  std::int64_t first = 0, last = 0;

  std::int64_t size() const { return last - first; }
  bool has(std::int64_t id) const { return first <= id && id < last; }
};

/// The items of an index where the caller has them, and what is the same for all of a range that lie on the device.
template <class Device>
class Catalogue {
 public:
  Catalogue(Device& device, const FusedItemsArgs& given, const std::vector<char>& placed, const ItemRange& part)
      : views(given.items.begin(), given.items.end()),
        names(given.names.begin(), given.names.end()),
        places(placed),
        args(given),
        range(part) {
    args.items = views;
    args.names = names;
    MatrixView<const std::uint8_t> flags_given = args.present;
    if (flags_given.data != nullptr) {
      flags_given.data = flags_given.row(range.first);
      flags_given.rows = n_items();
    }
    PresenceGroups found = presence_groups(flags_given, n_items(), views.size());
    args.present = {};  // the groups have it now
    groups_ = std::move(found.group_of);
    groups_.resize(static_cast<std::size_t>(n_items()), 0);
    n_groups = static_cast<int>(found.groups.size());
    std::vector<char> flags;
    for (const auto& group : found.groups) flags.insert(flags.end(), group.present.begin(), group.present.end());
    present = {device, std::span<const char>(flags)};
    sizes = {n_items(), 0, n_modalities(), 0, 0, n_groups};
    std::vector<std::int32_t> column_ends;
    for (std::size_t m = 0; m < views.size(); ++m) {
      sizes.dim += views[m].cols;
      sizes.image_dim += image_columns(views[m].cols);
      column_ends.push_back(static_cast<std::int32_t>(sizes.image_dim));
      if (!is_in_place(places, m, views[m])) sizes.copied_dim += views[m].cols;
    }
    ends = {device, std::span<const std::int32_t>(column_ends)};
  }
  Catalogue(const Catalogue&) = delete;
  Catalogue& operator=(const Catalogue&) = delete;

  /// Of the range; ids are those of all items.
  std::int64_t n_items() const { return range.size(); }
  std::int64_t n_all() const { return args.items[0].rows; }
  std::int32_t group_of(std::int64_t id) const { return groups_[static_cast<std::size_t>(id - range.first)]; }
  /// Of items that follow one another.
  std::span<const std::int32_t> groups_of(std::int64_t first, std::int64_t n) const {
    return std::span(groups_).subspan(static_cast<std::size_t>(first - range.first), static_cast<std::size_t>(n));
  }
  int n_modalities() const { return static_cast<int>(views.size()); }
  bool cosine() const { return args.metric == Metric::kCosine; }
  int n_slabs() const { return slabs_for(sizes.image_dim); }

  std::vector<MatrixView<const float>> views;
  std::vector<std::string> names;
  std::vector<char> places;  // per modality: a Place
  FusedItemsArgs args;       // of all items, wherever they are searched
  ItemRange range;
  int n_groups = 1;
  typename Device::template Array<char> present;       // (groups, modalities)
  typename Device::template Array<std::int32_t> ends;  // per modality: its columns in float16 end there
  ItemSizes sizes;

 private:
  std::vector<std::int32_t> groups_;  // per item: which modalities it has
};

/// Items whose vectors are on the device, ready to be scored.
template <class Device>
class ItemBlock {
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  /// Of items [first, first + n), whose vectors are the rows of `matrices`.
  ItemBlock(Device& device, const Catalogue<Device>& catalogue, const Matrices& matrices, std::int64_t first,
            std::int64_t n)
      : catalogue_(catalogue),
        matrices_(matrices),
        first_(first),
        n_(n),
        groups_(device, catalogue.groups_of(first, n)),
        inverse_norms_(device, static_cast<std::size_t>(n) * catalogue.views.size()) {
    measure(device);
  }
  /// Of these items, which ascend.
  ItemBlock(Device& device, const Catalogue<Device>& catalogue, const Matrices& matrices,
            std::span<const std::int32_t> ids)
      : catalogue_(catalogue),
        matrices_(matrices),
        n_(static_cast<std::int64_t>(ids.size())),
        host_ids_(ids.begin(), ids.end()),
        ids_(device, ids),
        inverse_norms_(device, ids.size() * catalogue.views.size()) {
    std::vector<std::int32_t> groups;
    for (const std::int32_t id : ids) groups.push_back(catalogue.group_of(id));
    groups_ = {device, std::span<const std::int32_t>(groups)};
    measure(device);
  }

  Items items() const {
    return {matrices_,           n_,
            catalogue_.cosine(), inverse_norms_.data(),
            groups_.data(),      catalogue_.present.data(),
            catalogue_.n_groups, first_,
            ids_.data()};
  }
  std::int64_t size() const { return n_; }
  std::int32_t id(std::int64_t row) const {
    return host_ids_.empty() ? static_cast<std::int32_t>(first_ + row) : host_ids_[static_cast<std::size_t>(row)];
  }
  bool is_regular(std::int32_t id) const { return !std::binary_search(irregular_.begin(), irregular_.end(), id); }
  std::int32_t n_irregular() const { return static_cast<std::int32_t>(irregular_.size()); }
  const std::int32_t* irregular() const { return irregular_ids_.data(); }
  const double* units() const { return units_.data(); }
  double largest_item() const { return largest_item_; }
  bool is_screened() const { return screened_; }

 private:
  /// Norms; which items the screen cannot judge; the unit of every modality.
  void measure(Device& device) {
    const std::size_t n_modalities = catalogue_.views.size();
    Array<float> largest(device, static_cast<std::size_t>(n_) * n_modalities);
    Array<std::int32_t> irregular(device, static_cast<std::size_t>(n_));
    device.launch(MeasureItems{items(), inverse_norms_.data(), largest.data(), irregular.data()},
                  (n_ + MeasureItems::kThreads - 1) / MeasureItems::kThreads, 1, 0);
    const std::vector<std::int32_t> flags = irregular.all();
    const std::vector<float> of_items = largest.all();
    std::vector<double> most(n_modalities, 0.0), units;
    for (std::int64_t row = 0; row < n_; ++row) {
      if (flags[static_cast<std::size_t>(row)] != 0) {
        irregular_.push_back(id(row));
        continue;
      }
      const float* const of_item = of_items.data() + static_cast<std::size_t>(row) * n_modalities;
      for (std::size_t m = 0; m < n_modalities; ++m) most[m] = std::max(most[m], static_cast<double>(of_item[m]));
    }
    for (std::size_t m = 0; m < n_modalities; ++m) {
      units.push_back(unit_for(most[m]));
      const auto cols = static_cast<double>(catalogue_.views[m].cols);
      largest_item_ = std::max(largest_item_, most[m] * std::sqrt(cols));
    }
    units_ = {device, std::span<const double>(units)};
    irregular_ids_ = {device, std::span<const std::int32_t>(irregular_)};
    screened_ = catalogue_.sizes.dim <= SearchLimits::kMostDim && n_irregular() <= SearchLimits::kMostIrregular &&
                PackItems::shared_bytes(catalogue_.n_modalities()) <= device.most_shared_bytes();
  }

  const Catalogue<Device>& catalogue_;
  Matrices matrices_;
  std::int64_t first_ = 0, n_;
  std::vector<std::int32_t> host_ids_;  // empty where the rows are neighbours
  Array<std::int32_t> ids_, groups_, irregular_ids_;
  Array<double> inverse_norms_, units_;
  std::vector<std::int32_t> irregular_;  // ids of items that the screen cannot judge; ascending
  double largest_item_ = 0;
  bool screened_ = false;
};

/// Regular items of a block in tiles of float16, by what modalities they have, so that those of a tile are alike.
template <class Device>
class PackedItems {
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  PackedItems(Device& device, const Catalogue<Device>& catalogue, const ItemBlock<Device>& block)
      : PackedItems(device, catalogue, block, block.size(), [&](std::int64_t row) { return block.id(row); }) {}
  /// Of the block's items these alone.
  PackedItems(Device& device, const Catalogue<Device>& catalogue, const ItemBlock<Device>& block,
              std::span<const std::int32_t> ids)
      : PackedItems(device, catalogue, block, static_cast<std::int64_t>(ids.size()),
                    [&](std::int64_t i) { return ids[static_cast<std::size_t>(i)]; }) {}
  std::int64_t n_tiles() const { return static_cast<std::int64_t>(groups_.size()); }
  std::int64_t image_bytes() const { return static_cast<std::int64_t>(image_.size() * sizeof(half_bits)); }
  Tiles tiles() const {
    return {image_.data(),
            ids_.data(),
            groups_.data(),
            norms_.data(),
            catalogue_.present.data(),
            catalogue_.n_slabs(),
            catalogue_.n_modalities(),
            catalogue_.n_groups,
            catalogue_.ends.data()};
  }

 private:
  template <class IdOf>
  PackedItems(Device& device, const Catalogue<Device>& catalogue, const ItemBlock<Device>& block, std::int64_t n,
              const IdOf& id_of)
      : catalogue_(catalogue) {
    if (!block.is_screened()) return;
    order(device, block, n, id_of);
    const auto n_modalities = static_cast<std::size_t>(catalogue.n_modalities());
    const int n_slabs = catalogue.n_slabs();
    image_ = {device, static_cast<std::size_t>(n_tiles() * kTileItems * n_slabs * kSlab)};
    norms_ = {device, static_cast<std::size_t>(n_tiles()) * n_modalities * 2};
    if (n_tiles() == 0) return;
    device.launch(PackItems{block.items(), ids_.data(), block.units(), n_slabs, image_.data(), norms_.data()},
                  n_tiles(), 1, PackItems::shared_bytes(catalogue.n_modalities()));
  }

  template <class IdOf>
  void order(Device& device, const ItemBlock<Device>& block, std::int64_t n, const IdOf& id_of) {
    std::vector<std::vector<std::int32_t>> by_group(static_cast<std::size_t>(catalogue_.n_groups));
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int32_t id = id_of(i);
      const auto group = static_cast<std::size_t>(catalogue_.group_of(id));
      if (block.is_regular(id)) by_group[group].push_back(id);
    }
    std::vector<std::int32_t> ids, tile_groups;
    for (std::size_t group = 0; group < by_group.size(); ++group) {
      ids.insert(ids.end(), by_group[group].begin(), by_group[group].end());
      ids.resize((ids.size() + kTileItems - 1) / kTileItems * kTileItems, -1);
      tile_groups.resize(ids.size() / kTileItems, static_cast<std::int32_t>(group));
    }
    ids_ = {device, std::span<const std::int32_t>(ids)};
    groups_ = {device, std::span<const std::int32_t>(tile_groups)};
  }

  const Catalogue<Device>& catalogue_;
  Array<std::int32_t> ids_, groups_;  // by position, -1: none; per tile
  Array<half_bits> image_;
  Array<double> norms_;
};

}  // namespace recfuse::cuda
