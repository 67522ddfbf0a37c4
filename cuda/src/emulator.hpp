// The device of the tests: kernels as loops over blocks and threads, memory on the heap, so that a compiler's
// sanitizers see every access. Fresh memory is filled with bytes that no kernel expects: whoever reads before writing
// is found.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
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
#include "recfuse/views.hpp"

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
    void write(std::span<const T> from) { std::copy(from.begin(), from.end(), data()); }
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

  template <class T>
  class HostArray {
   public:
    HostArray(Emulator&, std::size_t size) : values_(size) {}
    T* data() { return values_.data(); }
    static void copy_to(void* to, const T* from, std::size_t n) { std::memcpy(to, from, n * sizeof(T)); }

   private:
    std::vector<T> values_;
  };

  /// Launches that the thread which records has not run.
  class Recording {
   public:
    void replay(Emulator&) const {
      for (const auto& launch : launches_) launch();
    }

   private:
    friend Emulator;
    std::vector<std::function<void()>> launches_;
  };

  template <class F>
  Recording record(const F& launches) {
    Recording recording;
    recording_ = &recording;
    launches();
    recording_ = nullptr;
    return recording;
  }

  template <class Body>
  void launch(const Body& body, std::int64_t grid_x, std::int64_t grid_y, std::size_t shared_bytes) {
    if (recording_ == nullptr) return run(body, grid_x, grid_y, shared_bytes);
    recording_->launches_.emplace_back([=, this] { run(body, grid_x, grid_y, shared_bytes); });
  }

  template <class Body>
  void run(const Body& body, std::int64_t grid_x, std::int64_t grid_y, std::size_t shared_bytes) {
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

  /// As Gpu::Upload: nothing is left to wait for.
  class Upload {
   public:
    explicit Upload(Emulator&) {}
    template <class RowOf>
    void rows(float* to, std::int64_t n, std::int64_t cols, const RowOf& row_of) {
      for (std::int64_t i = 0; i < n; ++i) std::copy_n(row_of(i), cols, to + i * cols);
    }
    void finish() {}
  };

  struct Here {};
  Here enter() const { return {}; }
  void wait() {}
  static MemoryInfo memory_info() {
    return {memory.total - std::min<std::size_t>(memory.used, memory.total), memory.total};
  }

  int multiprocessors() const { return 3; }
  std::size_t most_shared_bytes() const { return most_shared_bytes_; }
  void set_most_shared_bytes(std::size_t bytes) { most_shared_bytes_ = bytes; }
  bool has_hopper() const { return has_hopper_; }
  void set_hopper(bool has) { has_hopper_ = has; }
  std::string name() const { return "the emulator"; }

 private:
  inline static thread_local Recording* recording_ = nullptr;

  std::size_t most_shared_bytes_ = 227 << 10;
  bool has_hopper_ = true;

  static constexpr int kPoison = 0xCB;
  static constexpr std::size_t kAlignment = 1024;  // as shared memory on a device
};

}  // namespace recfuse::cuda
