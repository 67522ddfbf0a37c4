// The devices of the tests: kernels as loops over blocks and threads, memory on the heap, so that a compiler's
// sanitizers see every access. Fresh memory is filled with bytes that no kernel expects: whoever reads before writing
// is found. Each device has memory of its own: a kernel that is given an address in another one's does not run.
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
#include <utility>
#include <vector>

#include "block.cuh"
#include "emulated_crew.hpp"
#include "emulated_feed.hpp"
#include "emulated_memory.hpp"
#include "recfuse/cuda/memory.hpp"
#include "recfuse/errors.hpp"
#include "recfuse/views.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define RECFUSE_SANITIZE_LENT(begin, bytes, left) \
  (__asan_unpoison_memory_region((begin), (bytes)), __asan_poison_memory_region((begin) + (bytes), (left)))
#else
#define RECFUSE_SANITIZE_LENT(begin, bytes, left) static_cast<void>(left)
#endif

namespace recfuse::cuda {

class Emulator {
 public:
  static constexpr int kIndex = 0;  // of the device where nobody names one
  inline static EmulatedMemory& memory = EmulatedMemory::of(kIndex);

  explicit Emulator(int index = kIndex) : index_(index), own_(EmulatedMemory::of(index)) {}

  template <class T>
  class Array {
   public:
    Array() = default;
    Array(Emulator& device, std::size_t size)
        : size_(size), data_(allocated(device.own_, size), Deleter{&device.own_, size * sizeof(T)}) {
      std::memset(static_cast<void*>(data_.get()), kPoison, size * sizeof(T));
    }
    Array(Emulator& device, std::span<const T> values) : Array(device, values.size()) { write(values); }
    /// As of Gpu::Array: memory that is another array's.
    Array(Emulator&, T* data, std::size_t size) : size_(size), data_(data, Deleter{}) {}

    std::size_t size() const { return size_; }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    void clear() { std::memset(static_cast<void*>(data()), 0, size_ * sizeof(T)); }
    void write_rows(const T* from, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
      if (rows > 0) check_reaches(from);
      copy_rows(from, rows, cols, stride);
    }
    void write(std::span<const T> from) {
      check_reaches(from.data());
      // Addresses among what is written are for kernels of this device.
      if constexpr (std::is_pointer_v<T>) std::for_each(from.begin(), from.end(), [&](T at) { check_reaches(at); });
      std::copy(from.begin(), from.end(), data());
    }
    void copy_rows_of_peer(const T* from, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
      copy_rows(from, rows, cols, stride);
    }
    void copy_of_peer(std::size_t at, const T* from, std::size_t n) { std::copy_n(from, n, data() + at); }
    void read(std::span<T> to) const {
      check_reaches(to.data());
      std::copy_n(data(), to.size(), to.begin());
    }
    std::vector<T> all() const { return {data(), data() + size_}; }

   private:
    struct Deleter {
      EmulatedMemory* memory = nullptr;
      std::size_t bytes = 0;
      void operator()(T* data) const {
        if (memory == nullptr) return;  // of a view
        memory->forget(data);
        delete[] data;
        memory->give_back(bytes);
      }
    };
    static T* allocated(EmulatedMemory& memory, std::size_t size) {
      memory.take(size * sizeof(T));
      T* const data = new T[std::max<std::size_t>(size, 1)];
      memory.note(data, std::max<std::size_t>(size, 1) * sizeof(T));
      return data;
    }
    void check_reaches(const void* address) const {
      const EmulatedMemory* const memory = data_.get_deleter().memory;
      if (memory != nullptr) memory->check_reaches(address, "a copy");
    }
    void copy_rows(const T* from, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
      for (std::int64_t i = 0; i < rows; ++i) std::copy_n(from + i * stride, cols, data() + i * cols);
    }

    std::size_t size_ = 0;
    std::unique_ptr<T[], Deleter> data_;
  };

  template <class T>
  class HostArray {
   public:
    HostArray(Emulator&, std::size_t size) : values_(size) {}
    std::size_t size() const { return values_.size(); }
    T* data() { return values_.data(); }
    const T* data() const { return values_.data(); }
    static void copy_to(void* to, const T* from, std::size_t n) {
      if (n > 0) std::memcpy(to, from, n * sizeof(T));
    }

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
    own_.count_recording();
    Recording recording;
    const Scoped<Recording*> scope(recording_, &recording);
    launches();
    return recording;
  }
  template <class F>
  static void without_launches(const F& f) {
    const Scoped<bool> scope(silent_, true);
    f();
  }

  template <class Body>
  void launch(const Body& body, std::int64_t grid_x, std::int64_t grid_y, std::size_t shared_bytes) {
    now_or_recorded([=, this] { run(body, grid_x, grid_y, shared_bytes); });
  }

  /// As Gpu::call_host. Neither what f has not written nor what it had before is anybody's to read.
  template <class In, class Out, class F>
  void call_host(const In* from, HostArray<In>& in, F& f, HostArray<Out>& out, Out* to) {
    now_or_recorded([=, this, &in, &f, &out] {
      own_.check_reaches(from, "a copy");
      own_.check_reaches(to, "a copy");
      std::copy_n(from, in.size(), in.data());
      std::memset(static_cast<void*>(out.data()), kPoison, out.size() * sizeof(Out));
      f();
      std::copy_n(out.data(), out.size(), to);
      std::memset(static_cast<void*>(in.data()), kPoison, in.size() * sizeof(In));
    });
  }
  /// `bytes` of what an array has are fresh memory from now on, and of those behind them, `left`, nobody has any.
  void lend(char* begin, std::size_t bytes, [[maybe_unused]] std::size_t left) {
    now_or_recorded([=] {
      RECFUSE_SANITIZE_LENT(begin, bytes, left);
      std::memset(begin, kPoison, bytes);
    });
  }

  template <class Body>
  void run(const Body& body, std::int64_t grid_x, std::int64_t grid_y, std::size_t shared_bytes) {
    if (grid_x == 0 || grid_y == 0) return;  // as Gpu::launch: rows of none may begin behind the last of an array
    own_.check_reaches_of(body);
    own_.count_launch();
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
    explicit Upload(Emulator& device) : memory_(device.own_) {}
    template <class RowOf>
    void rows(float* to, std::int64_t n, std::int64_t cols, const RowOf& row_of) {
      memory_.check_reaches(to, "a copy");
      if (n > 0) memory_.check_reaches(row_of(0), "a copy");
      for (std::int64_t i = 0; i < n; ++i) std::copy_n(row_of(i), cols, to + i * cols);
    }
    void finish() {}

   private:
    EmulatedMemory& memory_;
  };

  class Feed : public EmulatedFeed {
   public:
    explicit Feed(Emulator& device) : memory_(device.own_) {}
    void send(int place, void* to, const void* from, std::size_t bytes) {
      if (silent_) return;
      memory_.check_reaches(to, "a copy");
      memory_.check_reaches(from, "a copy");
      EmulatedFeed::send(place, to, from, bytes);
    }
    void await(int place) {
      if (!silent_) EmulatedFeed::await(place);
    }
    void free(int place) {
      if (!silent_) EmulatedFeed::free(place);
    }

   private:
    EmulatedMemory& memory_;
  };

  struct Here {};
  Here enter() const { return {}; }
  static Here enter(int) { return {}; }
  static void connect(std::span<const int>) {}
  void wait() {}
  static MemoryInfo memory_info(int index = kIndex) { return EmulatedMemory::of(index).info(); }

  /// As Gpu::receive: nothing is left to wait for.
  std::vector<char> receive(std::span<const MatrixView<const float>> matrices, const Placement& placement) const {
    std::vector<char> places(placement.on_device);
    for (std::size_t m = 0; m < places.size(); ++m) {
      if (places[m] == kOnHost || matrices[m].rows == 0) continue;
      places[m] = EmulatedMemory::device_of(matrices[m].data) == index_ ? kHere : kOnPeer;
    }
    return places;
  }
  int index() const { return index_; }

  int multiprocessors() const { return 3; }
  std::size_t most_shared_bytes() const { return most_shared_bytes_; }
  void set_most_shared_bytes(std::size_t bytes) { most_shared_bytes_ = bytes; }
  bool has_hopper() const { return has_hopper_; }
  void set_hopper(bool has) { has_hopper_ = has; }
  std::string name() const { return "the emulator"; }

 private:
  /// Has another value until the end of the scope.
  template <class T>
  class Scoped {
   public:
    Scoped(T& variable, T value) : variable_(variable), before_(std::exchange(variable, value)) {}
    ~Scoped() { variable_ = before_; }
    Scoped(const Scoped&) = delete;
    Scoped& operator=(const Scoped&) = delete;

   private:
    T& variable_;
    T before_;
  };
  template <class F>
  static void now_or_recorded(const F& f) {
    if (silent_) return;
    if (recording_ == nullptr) return f();
    recording_->launches_.emplace_back(f);
  }

  inline static thread_local Recording* recording_ = nullptr;
  inline static thread_local bool silent_ = false;

  int index_;
  EmulatedMemory& own_;
  std::size_t most_shared_bytes_ = 227 << 10;
  bool has_hopper_ = true;

  static constexpr int kPoison = 0xCB;
  static constexpr std::size_t kAlignment = 1024;  // as shared memory on a device
};

}  // namespace recfuse::cuda
