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
/// Out of memory says how much was asked for and how much there is.
void check_allocation(cudaError_t status, std::size_t bytes);

template <class Body>
__global__ void __launch_bounds__(Body::kThreads, 1) run(const __grid_constant__ Body body) {
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
  static constexpr int kIndex = 0;  // of the device that searches use

  /// The device, which the calling thread has entered, with a stream of its own. Throws DeviceError where there is
  /// none.
  Gpu();
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  template <class T>
  class Array {
   public:
    Array() = default;
    Array(Gpu& device, std::size_t size) : size_(size), stream_(device.stream_) {
      if (size == 0) return;
      check_allocation(cudaMallocAsync(reinterpret_cast<void**>(&data_), bytes(), stream_), bytes());
    }
    Array(Gpu& device, std::span<const T> values) : Array(device, values.size()) {
      if (size_ > 0) copy(data_, values.data(), cudaMemcpyHostToDevice);
    }
    ~Array() { release(); }
    Array(Array&& other) noexcept { *this = std::move(other); }
    Array& operator=(Array&& other) noexcept {
      release();
      size_ = std::exchange(other.size_, 0);
      data_ = std::exchange(other.data_, nullptr);
      stream_ = other.stream_;
      return *this;
    }

    std::size_t size() const { return size_; }
    T* data() { return data_; }
    const T* data() const { return data_; }
    void clear() {
      if (size_ > 0) check(cudaMemsetAsync(data_, 0, bytes(), stream_), "cudaMemsetAsync");
    }
    /// From the host or the device.
    void write_rows(const T* from, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
      if (rows == 0 || cols == 0) return;
      const std::size_t width = static_cast<std::size_t>(cols) * sizeof(T);
      check(cudaMemcpy2DAsync(data_, width, from, static_cast<std::size_t>(stride) * sizeof(T), width,
                              static_cast<std::size_t>(rows), cudaMemcpyDefault, stream_),
            "cudaMemcpy2DAsync");
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
    void copy(T* to, const T* from, cudaMemcpyKind kind) {
      // From pageable memory the call returns when the source may be used again.
      check(cudaMemcpyAsync(to, from, bytes(), kind, stream_), "cudaMemcpyAsync");
    }
    void release() noexcept {
      if (data_ != nullptr) cudaFreeAsync(std::exchange(data_, nullptr), stream_);
    }

    std::size_t size_ = 0;
    T* data_ = nullptr;
    cudaStream_t stream_ = nullptr;
  };

  template <class Body>
  void launch(const Body& body, std::int64_t grid_x, std::int64_t grid_y, std::size_t shared_bytes) {
    constexpr std::size_t kUnasked = 48 << 10;
    if (shared_bytes > kUnasked) {
      check(
          cudaFuncSetAttribute(run<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          "cudaFuncSetAttribute");
    }
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(grid_x), static_cast<unsigned>(grid_y));
    config.blockDim = dim3(Body::kThreads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream_;
    check(cudaLaunchKernelEx(&config, run<Body>, body), "cudaLaunchKernel");
  }

  /// Takes matrices that are on the device already: work that follows waits for the streams that write them. Throws
  /// std::invalid_argument for memory of another device.
  Gpu& receive(std::span<const MatrixView<const float>> matrices, const Placement& placement);

  int multiprocessors() const { return multiprocessors_; }
  std::size_t most_shared_bytes() const { return most_shared_bytes_; }
  /// Compute capability 9.0, with kernels compiled for sm_90a.
  bool has_hopper() const { return has_hopper_; }
  const std::string& name() const { return name_; }

 private:
  cudaStream_t stream_ = nullptr;
  int multiprocessors_ = 0;
  std::size_t most_shared_bytes_ = 0;
  bool has_hopper_ = false;
  std::string name_;
};

}  // namespace recfuse::cuda
