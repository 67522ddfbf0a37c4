// The GPU: the only place that allocates, copies and launches. Everything is ordered on one stream.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block.cuh"
#include "recfuse/cuda/memory.hpp"
#include "recfuse/errors.hpp"
#include "recfuse/views.hpp"

namespace recfuse::cuda {

/// Throws what the status of one of our calls means. What other libraries left behind stays for them: nothing here asks
/// for the last error, but to clear one of ours.
void check(cudaError_t status, const char* call);
/// Memory of a device that is there when the stream comes to it. Throws DeviceOutOfMemory.
void* allocated(std::size_t bytes, int device, cudaStream_t stream);
/// Host memory that a device copies from by itself. Throws DeviceOutOfMemory.
void* pinned(std::size_t bytes);

/// How many blocks a multiprocessor is to hold at once, where a kernel says so: it gets no more registers than that.
template <class Body>
constexpr int blocks_at_once() {
  if constexpr (requires { Body::kBlocksAtOnce; }) {
    return Body::kBlocksAtOnce;
  } else {
    return 1;
  }
}

template <class Body>
__global__ void __launch_bounds__(Body::kThreads, blocks_at_once<Body>()) run(const __grid_constant__ Body body) {
  DeviceBlock block;
  body(block);
}

/// Makes a device the calling thread's until the end of the scope: others count on the one that they have chosen.
class Entered {
 public:
  explicit Entered(int index);
  ~Entered();
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  int before_ = 0;
};

class Gpu {
 public:
  static constexpr int kIndex = 0;  // of the device where nobody names one

  /// A device, which the calling thread has entered, with a stream of its own. Throws DeviceError where there is none.
  explicit Gpu(int index = kIndex);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  template <class T>
  class Array {
   public:
    Array() = default;
    Array(Gpu& device, std::size_t size) : size_(size), stream_(device.stream_) {
      if (size > 0) data_ = static_cast<T*>(allocated(bytes(), device.index_, stream_));
    }
    /// The values may go when this has returned.
    Array(Gpu& device, std::span<const T> values) : Array(device, values.size()) {
      if (size_ == 0) return;
      check(cudaMemcpyAsync(data_, values.data(), bytes(), cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
      // Pageable memory is read before the call returns, but where the device reads it by itself.
      if (device.reads_pages_of_host_) check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    }
    /// Of memory that is another array's, for as long as that has it.
    Array(Gpu& device, T* data, std::size_t size) : size_(size), data_(data), stream_(device.stream_), is_view_(true) {}
    ~Array() { release(); }
    Array(Array&& other) noexcept { *this = std::move(other); }
    Array& operator=(Array&& other) noexcept {
      release();
      size_ = std::exchange(other.size_, 0);
      data_ = std::exchange(other.data_, nullptr);
      stream_ = other.stream_;
      is_view_ = other.is_view_;
      return *this;
    }

    std::size_t size() const { return size_; }
    T* data() { return data_; }
    const T* data() const { return data_; }
    void clear() {
      if (size_ > 0) check(cudaMemsetAsync(data_, 0, bytes(), stream_), "cudaMemsetAsync");
    }
    /// From the host or the device.
    void write(std::span<const T> from) {
      if (!from.empty()) {
        check(cudaMemcpyAsync(data_, from.data(), from.size_bytes(), cudaMemcpyDefault, stream_), "cudaMemcpyAsync");
      }
    }
    void write_rows(const T* from, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
      if (rows == 0 || cols == 0) return;
      const std::size_t width = static_cast<std::size_t>(cols) * sizeof(T);
      if (stride == cols) {
        const std::size_t all = static_cast<std::size_t>(rows) * width;
        return check(cudaMemcpyAsync(data_, from, all, cudaMemcpyDefault, stream_), "cudaMemcpyAsync");
      }
      check(cudaMemcpy2DAsync(data_, width, from, static_cast<std::size_t>(stride) * sizeof(T), width,
                              static_cast<std::size_t>(rows), cudaMemcpyDefault, stream_),
            "cudaMemcpy2DAsync");
    }
    /// Rows in the memory of another device.
    void copy_rows_of_peer(const T* from, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
      copy_from_peer(data_, from, rows, static_cast<std::size_t>(cols) * sizeof(T),
                     static_cast<std::size_t>(stride) * sizeof(T), stream_);
    }
    /// Elements from `at` on, from the memory of any device; for who waits before they change.
    void copy_of_peer(std::size_t at, const T* from, std::size_t n) {
      copy_from_peer(data_ + at, from, 1, n * sizeof(T), n * sizeof(T), stream_);
    }
    /// To the host or the device; waits.
    void read(std::span<T> to) const {
      if (to.empty()) return;
      check(cudaMemcpyAsync(to.data(), data_, to.size_bytes(), cudaMemcpyDefault, stream_), "cudaMemcpyAsync");
      check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    }
    std::vector<T> all() const {
      std::vector<T> result(size_);
      read(result);
      return result;
    }

   private:
    std::size_t bytes() const { return size_ * sizeof(T); }
    void release() noexcept {
      T* const data = std::exchange(data_, nullptr);
      if (data != nullptr && !is_view_) cudaFreeAsync(data, stream_);
    }

    std::size_t size_ = 0;
    T* data_ = nullptr;
    cudaStream_t stream_ = nullptr;
    bool is_view_ = false;
  };

  /// Copies to the device beside the other work there: from the host through pinned memory, and on a stream of its own.
  /// Of one thread at a time.
  class Upload {
   public:
    explicit Upload(Gpu&);
    ~Upload();
    Upload(const Upload&) = delete;
    Upload& operator=(const Upload&) = delete;

    /// Row i from row_of(i) in host memory, which may change when the call has returned.
    template <class RowOf>
    void rows(float* to, std::int64_t n, std::int64_t cols, const RowOf& row_of) {
      for (std::int64_t i = 0; i < n; ++i) append(to + i * cols, row_of(i), cols);
      send();
    }
    void finish();

   private:
    static constexpr std::int64_t kFloats = 4 << 20;
    struct Slot {
      float* data = nullptr;
      cudaEvent_t sent = nullptr;
    };
    void append(float* to, const float* from, std::int64_t n);
    void send();

    cudaStream_t stream_ = nullptr;
    Slot slots_[2];
    int slot_ = 0;
    std::int64_t filled_ = 0;  // floats in the slot at hand
    float* to_ = nullptr;      // where they go
  };

  /// Copies from pinned memory, on a stream of their own, to two places that kernels read in turns. Of one thread at a
  /// time.
  class Feed {
   public:
    explicit Feed(Gpu& device);
    ~Feed();
    Feed(const Feed&) = delete;
    Feed& operator=(const Feed&) = delete;

    /// To a place that is free; `from` stays as it is until the copy is awaited.
    void send(int place, void* to, const void* from, std::size_t bytes);
    /// Kernels that are launched from now on come after the copy.
    void await(int place);
    /// Free when the kernels that have been launched so far are done.
    void free(int place);

   private:
    Gpu& device_;
    cudaStream_t stream_ = nullptr;
    cudaEvent_t sent_[2] = {}, freed_[2] = {};
  };

  /// Pinned.
  template <class T>
  class HostArray {
   public:
    HostArray(Gpu&, std::size_t size)
        : size_(size), data_(static_cast<T*>(pinned(std::max<std::size_t>(size, 1) * sizeof(T)))) {}
    ~HostArray() { cudaFreeHost(data_); }
    HostArray(const HostArray&) = delete;
    HostArray& operator=(const HostArray&) = delete;

    std::size_t size() const { return size_; }
    T* data() { return data_; }
    const T* data() const { return data_; }
    /// From here to the host or the device; waits.
    static void copy_to(void* to, const T* from, std::size_t n) {
      if (n > 0) copy_from_host(to, from, n * sizeof(T));
    }

   private:
    std::size_t size_;
    T* data_ = nullptr;
  };

  /// Launches as a graph.
  class Recording {
   public:
    Recording() = default;
    ~Recording();
    Recording(Recording&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
    Recording& operator=(Recording&& other) noexcept {
      std::swap(graph_, other.graph_);
      return *this;
    }
    void replay(Gpu& device) const { check(cudaGraphLaunch(graph_, device.stream_), "cudaGraphLaunch"); }

   private:
    friend Gpu;
    cudaGraphExec_t graph_ = nullptr;
  };

  /// The launches of `f`, which do not run now. They are captured on a stream of their own: other threads go on sending
  /// to that of the device.
  template <class F>
  Recording record(const F& f) {
    Recording recording;
    begin_recording();
    try {
      f();
    } catch (...) {
      end_recording(nullptr);
      throw;
    }
    end_recording(&recording);
    return recording;
  }

  /// Calls f, whose launches come to nothing, and what it asks of a Feed.
  template <class F>
  static void without_launches(const F& f) {
    const Silent silent;
    f();
  }

  /// Between the launches before and after: `in` becomes what is at `from`, f makes `out` of it, and that goes `to` the
  /// device. All of it, and f, stay where they are as long as a recording has them: there f is called on a thread of
  /// the driver, which may be one for all devices, and must not throw; else here, which waits.
  template <class In, class Out, class F>
  void call_host(const In* from, HostArray<In>& in, F& f, const HostArray<Out>& out, Out* to) {
    if (silent_) return;
    const std::size_t n_in = in.size() * sizeof(In), n_out = out.size() * sizeof(Out);
    check(cudaMemcpyAsync(in.data(), from, n_in, cudaMemcpyDeviceToHost, stream_now()), "cudaMemcpyAsync");
    if (recording_ != nullptr) {
      check(cudaLaunchHostFunc(
                stream_now(), [](void* called) { (*static_cast<F*>(called))(); }, &f),
            "cudaLaunchHostFunc");
    } else {
      wait();
      f();
    }
    check(cudaMemcpyAsync(to, out.data(), n_out, cudaMemcpyHostToDevice, stream_now()), "cudaMemcpyAsync");
  }
  /// Says that what is at `begin` is nobody's any more, and that none of the bytes behind it is: for the emulator.
  void lend(char*, std::size_t, std::size_t) {}

  int index() const { return index_; }
  Entered enter() const { return Entered(index_); }
  static Entered enter(int index) { return Entered(index); }
  /// Lets each of these devices copy from the memory of the others without the host, where the machine can.
  static void connect(std::span<const int> devices);
  void wait() { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }
  static MemoryInfo memory_info(int index = kIndex) { return cuda::memory_info(index); }

  template <class Body>
  void launch(const Body& body, std::int64_t grid_x, std::int64_t grid_y, std::size_t shared_bytes) {
    if (grid_x == 0 || grid_y == 0) return;  // which a driver takes for an error
    if (silent_) {                           // but the kernel is loaded, which is not for a recording to do
      cudaFuncAttributes loaded{};
      return check(cudaFuncGetAttributes(&loaded, run<Body>), "cudaFuncGetAttributes");
    }
    constexpr std::size_t kUnasked = 48 << 10;
    if (shared_bytes > kUnasked) {
      // All that there is, always: the limit is the kernel's, and another thread's search may want more or less.
      const auto most = static_cast<int>(most_shared_bytes_);
      check(cudaFuncSetAttribute(run<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize, most), "cudaFuncSetAttribute");
    }
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(grid_x), static_cast<unsigned>(grid_y));
    config.blockDim = dim3(Body::kThreads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream_now();
    check(cudaLaunchKernelEx(&config, run<Body>, body), "cudaLaunchKernel");
  }

  /// Takes matrices that are on a device already: work that follows waits for the streams that write them. Returns
  /// where they are, seen from here. Throws std::invalid_argument for what is not in the memory of a device.
  std::vector<char> receive(std::span<const MatrixView<const float>> matrices, const Placement& placement);

  int multiprocessors() const { return multiprocessors_; }
  std::size_t most_shared_bytes() const { return most_shared_bytes_; }
  /// Compute capability 9.0, with kernels compiled for sm_90a.
  bool has_hopper() const { return has_hopper_; }
  const std::string& name() const { return name_; }

 private:
  static void copy_from_host(void* to, const void* from, std::size_t bytes);
  static void copy_from_peer(void* to, const void* from, std::int64_t rows, std::size_t width, std::size_t pitch,
                             cudaStream_t stream);
  void wait_for(std::uintptr_t stream, int device);
  void begin_recording();
  /// Null: what was recorded is thrown away, whatever became of it.
  void end_recording(Recording* recording);

  /// Until the end of the scope nothing is launched.
  struct Silent {
    Silent() { silent_ = true; }
    ~Silent() { silent_ = false; }
    Silent(const Silent&) = delete;
    Silent& operator=(const Silent&) = delete;
  };
  cudaStream_t stream_now() const { return recording_ != nullptr ? recording_ : stream_; }

  static thread_local cudaStream_t recording_;  // where the launches of this thread go meanwhile
  static thread_local bool silent_;             // they go nowhere

  int index_;
  cudaStream_t stream_ = nullptr;
  int multiprocessors_ = 0;
  std::size_t most_shared_bytes_ = 0;
  bool has_hopper_ = false;
  bool reads_pages_of_host_ = false;
  std::string name_;
};

}  // namespace recfuse::cuda
