// The device of the tests: kernels as loops over blocks and threads, memory on the heap, so that a compiler's
// sanitizers see every access. Fresh memory is filled with bytes that no kernel expects: whoever reads before writing
// is found.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "block.cuh"
#include "emulated_crew.hpp"
#include "recfuse/cuda/memory.hpp"
#include "recfuse/errors.hpp"

namespace recfuse::cuda {

/// The memory of the device, which all emulators of a process share as they would share a GPU.
struct EmulatedMemory {
  std::atomic<std::size_t> total{std::numeric_limits<std::size_t>::max()}, used{0}, peak{0};

  void take(std::size_t bytes) {
    const std::size_t before = used.fetch_add(bytes);
    if (bytes > total || before > total - bytes) {
      used -= bytes;
      throw DeviceOutOfMemory(out_of_memory_text(bytes, {total - std::min(before, total.load()), total}));
    }
    std::size_t most = peak;
    while (most < before + bytes && !peak.compare_exchange_weak(most, before + bytes)) continue;
  }
  void give_back(std::size_t bytes) { used -= bytes; }
};

class Emulator {
 public:
  inline static EmulatedMemory memory;

  template <class T>
  class Array {
   public:
    Array() = default;
    Array(Emulator&, std::size_t size) : size_(size), data_(allocated(size), Deleter{size * sizeof(T)}) {
      std::memset(static_cast<void*>(data_.get()), kPoison, size * sizeof(T));
    }
    Array(Emulator& device, std::span<const T> values) : Array(device, values.size()) {
      std::copy(values.begin(), values.end(), data());
    }

    std::size_t size() const { return size_; }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    void clear() { std::memset(static_cast<void*>(data()), 0, size_ * sizeof(T)); }
    void write_rows(const T* from, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
      for (std::int64_t i = 0; i < rows; ++i) std::copy_n(from + i * stride, cols, data() + i * cols);
    }
    void read(std::span<T> to) const { std::copy_n(data(), to.size(), to.begin()); }
    std::vector<T> all() const { return {data(), data() + size_}; }

   private:
    struct Deleter {
      std::size_t bytes = 0;
      void operator()(T* data) const {
        delete[] data;
        memory.give_back(bytes);
      }
    };
    static T* allocated(std::size_t size) {
      memory.take(size * sizeof(T));
      return new T[std::max<std::size_t>(size, 1)];
    }

    std::size_t size_ = 0;
    std::unique_ptr<T[], Deleter> data_;
  };

  template <class Body>
  void launch(const Body& body, std::int64_t grid_x, std::int64_t grid_y, std::size_t shared_bytes) {
    // What a device refuses, too.
    if (shared_bytes > most_shared_bytes_) throw DeviceError("a block wants more shared memory than there is");
    if (grid_y > 65'535) throw DeviceError("a grid has at most 65,535 blocks in its second dimension");
    const std::size_t bytes = (shared_bytes + kAlignment) / kAlignment * kAlignment;
    const std::unique_ptr<char, void (*)(void*)> shared(static_cast<char*>(std::aligned_alloc(kAlignment, bytes)),
                                                        std::free);
    if (!shared) throw std::bad_alloc();
    for (std::int64_t y = 0; y < grid_y; ++y) {
      for (std::int64_t x = 0; x < grid_x; ++x) {
        std::memset(shared.get(), kPoison, bytes);
        HostBlock block(static_cast<int>(x), static_cast<int>(y), Body::kThreads, shared.get());
        body(block);
      }
    }
  }

  int multiprocessors() const { return 3; }
  std::size_t most_shared_bytes() const { return most_shared_bytes_; }
  void set_most_shared_bytes(std::size_t bytes) { most_shared_bytes_ = bytes; }
  bool has_hopper() const { return has_hopper_; }
  void set_hopper(bool has) { has_hopper_ = has; }
  std::string name() const { return "the emulator"; }

 private:
  std::size_t most_shared_bytes_ = 227 << 10;
  bool has_hopper_ = true;

  static constexpr int kPoison = 0xCB;
  static constexpr std::size_t kAlignment = 1024;  // as shared memory on a device
};

}  // namespace recfuse::cuda
