// Items that do not fit a device, a block at a time: while one is searched, the next is on its way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <future>
#include <span>
#include <utility>
#include <vector>

#include "items.cuh"

namespace recfuse::cuda {

/// Rows of a matrix that is on the device already: those of `ids`, or from `first` on.
struct CopyRows {
  static constexpr int kThreads = 128;
  MatrixView<const float> from;
  const std::int32_t* ids;
  std::int64_t first;
  float* to;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    const std::int64_t i = block.x();
    const float* const row = from.data + (ids == nullptr ? first + i : ids[i]) * from.stride;
    block.each_thread([&](int thread) {
      for (std::int64_t j = thread; j < from.cols; j += kThreads) to[i * from.cols + j] = row[j];
    });
  }
};

/// Of one thread at a time; the thread that copies lives no longer than a call.
template <class Device>
class BlockLoader {
  template <class T>
  using Array = typename Device::template Array<T>;

 public:
  BlockLoader(Device& device, const Catalogue<Device>& catalogue)
      : device_(device), catalogue_(catalogue), upload_(device) {}

  /// visit(block) for all items, in the order of their ids.
  template <class Visit>
  void each_block(std::int64_t block_items, const Visit& visit) {
    load_in_turn(block_items, catalogue_.n_items(), {}, visit);
  }
  /// visit(block) for these items, which ascend.
  template <class Visit>
  void each_block_of(std::int64_t block_items, std::span<const std::int32_t> ids, const Visit& visit) {
    load_in_turn(block_items, static_cast<std::int64_t>(ids.size()), ids, visit);
  }

 private:
  /// Items first, first + 1, ..., or where `ids` are given those.
  struct Rows {
    std::int64_t first = 0, n = 0;
    std::span<const std::int32_t> ids;

    std::int64_t id(std::int64_t i) const { return ids.empty() ? first + i : ids[static_cast<std::size_t>(i)]; }
  };

  template <class Visit>
  void load_in_turn(std::int64_t block_items, std::int64_t n, std::span<const std::int32_t> ids, const Visit& visit) {
    const std::int64_t n_blocks = (n + block_items - 1) / block_items;
    const auto rows_of = [&](std::int64_t b) {
      const std::int64_t first = b * block_items, here = std::min(block_items, n - first);
      const std::span<const std::int32_t> of_block =
          ids.empty() ? ids : ids.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(here));
      return Rows{catalogue_.range.first + first, here, of_block};
    };
    std::vector<std::vector<Array<float>>> slots;
    for (std::int64_t slot = 0; slot < std::min<std::int64_t>(2, n_blocks); ++slot) {
      slots.push_back(allocate(std::min(block_items, n), !ids.empty()));
    }
    device_.wait();  // for the memory: the copies have a stream of their own
    // After the slots: a copy under way ends before they do.
    std::future<void> next;
    const auto start = [&](std::int64_t b) {
      next = std::async(std::launch::async, [this, rows = rows_of(b), &slot = slots[static_cast<std::size_t>(b % 2)]] {
        copy_from_host(rows, slot);
      });
    };
    if (n_blocks > 0) start(0);
    for (std::int64_t b = 0; b < n_blocks; ++b) {
      next.get();
      // A visit ends with its results on the host, so nothing reads the other slot any more.
      if (b + 1 < n_blocks) start(b + 1);
      visit_block(rows_of(b), slots[static_cast<std::size_t>(b % 2)], visit);
    }
  }

  /// Of a modality that is used in place: nothing.
  std::vector<Array<float>> allocate(std::int64_t n, bool gathered) const {
    std::vector<Array<float>> copies(catalogue_.views.size());
    for (std::size_t m = 0; m < copies.size(); ++m) {
      if (!gathered && is_in_place(catalogue_.places, m, catalogue_.views[m])) continue;
      copies[m] = {device_, static_cast<std::size_t>(n * catalogue_.views[m].cols)};
    }
    return copies;
  }

  bool is_on_device(std::size_t m) const { return place_of(catalogue_.places, m) == kHere; }

  void copy_from_host(const Rows& rows, std::vector<Array<float>>& copies) {
    [[maybe_unused]] const auto here = device_.enter();
    for (std::size_t m = 0; m < copies.size(); ++m) {
      if (is_on_device(m)) continue;
      const auto& view = catalogue_.views[m];
      upload_.rows(copies[m].data(), rows.n, view.cols, [&](std::int64_t i) { return view.row(rows.id(i)); });
    }
    upload_.finish();
  }

  template <class Visit>
  void visit_block(const Rows& rows, std::vector<Array<float>>& copies, const Visit& visit) {
    const Array<std::int32_t> ids(device_, rows.ids);
    std::vector<const float*> pointers;
    std::vector<std::int64_t> cols;
    for (std::size_t m = 0; m < copies.size(); ++m) {
      const auto& view = catalogue_.views[m];
      const bool in_place = copies[m].size() == 0;
      if (is_on_device(m) && !in_place) {
        device_.launch(CopyRows{view, rows.ids.empty() ? nullptr : ids.data(), rows.first, copies[m].data()}, rows.n, 1,
                       0);
      }
      pointers.push_back(in_place ? view.row(rows.first) : copies[m].data());
      cols.push_back(view.cols);
    }
    const Array<const float*> of_modalities(device_, std::span<const float* const>(pointers));
    const Array<std::int64_t> widths(device_, std::span<const std::int64_t>(cols));
    const Matrices matrices{of_modalities.data(), widths.data(), static_cast<int>(cols.size())};
    if (rows.ids.empty()) {
      visit(ItemBlock<Device>(device_, catalogue_, matrices, rows.first, rows.n));
    } else {
      visit(ItemBlock<Device>(device_, catalogue_, matrices, rows.ids));
    }
  }

  Device& device_;
  const Catalogue<Device>& catalogue_;
  typename Device::Upload upload_;
};

}  // namespace recfuse::cuda
