#include <stdexcept>
#include <string>

#include "device.cuh"
#include "recfuse/cuda/device.hpp"
#include "recfuse/cuda/memory.hpp"

namespace recfuse::cuda {
namespace {

/// 13000 is 13.0.
std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

/// What it was compiled for is what the kernels were that are launched beside it.
struct TellHopper {
  static constexpr int kThreads = 1;
  std::int32_t* told;

  RECFUSE_DEVICE void operator()(DeviceBlock&) const { *told = RECFUSE_HOPPER; }
};

bool runs_hopper(Gpu& gpu) {
  Gpu::Array<std::int32_t> told(gpu, 1);
  gpu.launch(TellHopper{told.data()}, 1, 1, 0);
  return told.all()[0] != 0;
}

}  // namespace

std::string unusable_reason() {
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    cudaGetLastError();
    return "there is no NVIDIA driver on this machine";
  }
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) cudaGetLastError();
  if (status == cudaErrorInsufficientDriver) {
    return "the driver is made for CUDA " + version(driver) + ", this build for " + version(CUDART_VERSION) +
           ": update the driver";
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    return "the driver reports no CUDA device (is CUDA_VISIBLE_DEVICES set?)";
  }
  if (status != cudaSuccess) return std::string("the driver reports: ") + cudaGetErrorString(status);
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    cudaGetLastError();
    return "the driver does not tell what device 0 is";
  }
  if (properties.major >= 8) return "";
  return std::string(properties.name) + " has compute capability " + std::to_string(properties.major) + "." +
         std::to_string(properties.minor) + "; at least 8.0 is needed";
}

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // ours: it is told once
  throw DeviceError(std::string(call) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

void check_allocation(cudaError_t status, std::size_t bytes) {
  if (status != cudaErrorMemoryAllocation) return check(status, "cudaMallocAsync");
  cudaGetLastError();
  MemoryInfo info;
  check(cudaMemGetInfo(&info.free, &info.total), "cudaMemGetInfo");
  throw DeviceOutOfMemory(out_of_memory_text(bytes, info));
}

Entered::Entered(int index) {
  check(cudaGetDevice(&before_), "cudaGetDevice");
  check(cudaSetDevice(index), "cudaSetDevice");
}

Entered::~Entered() { cudaSetDevice(before_); }

Gpu::Gpu() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, kIndex), "cudaGetDeviceProperties");
  multiprocessors_ = properties.multiProcessorCount;
  most_shared_bytes_ = properties.sharedMemPerBlockOptin;
  name_ = properties.name;
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  has_hopper_ = properties.major == 9 && properties.minor == 0 && runs_hopper(*this);
}

Gpu::~Gpu() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Gpu& Gpu::receive(std::span<const MatrixView<const float>> matrices, const Placement& placement) {
  for (std::size_t m = 0; m < placement.on_device.size(); ++m) {
    if (placement.on_device[m] == 0 || matrices[m].rows == 0) continue;
    cudaPointerAttributes attributes{};
    check(cudaPointerGetAttributes(&attributes, matrices[m].data), "cudaPointerGetAttributes");
    const bool here = attributes.type == cudaMemoryTypeManaged ||
                      (attributes.type == cudaMemoryTypeDevice && attributes.device == kIndex);
    if (!here) {
      throw std::invalid_argument("fuse_topk: arrays on a GPU must be in the memory of cuda:" + std::to_string(kIndex) +
                                  "; got a pointer of type " + std::to_string(attributes.type) +
                                  ", cuda:" + std::to_string(attributes.device));
    }
  }
  for (const std::uintptr_t stream : placement.streams) {
    cudaEvent_t written = nullptr;
    check(cudaEventCreateWithFlags(&written, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    const cudaError_t recorded = cudaEventRecord(written, reinterpret_cast<cudaStream_t>(stream));
    const cudaError_t waits = recorded == cudaSuccess ? cudaStreamWaitEvent(stream_, written, 0) : cudaSuccess;
    cudaEventDestroy(written);  // when it has happened
    check(recorded, "cudaEventRecord");
    check(waits, "cudaStreamWaitEvent");
  }
  return *this;
}

MemoryInfo memory_info() {
  const Entered here(Gpu::kIndex);
  MemoryInfo info;
  check(cudaMemGetInfo(&info.free, &info.total), "cudaMemGetInfo");
  return info;
}

Memory::Memory(std::size_t bytes) : size_(bytes) {
  const Entered here(Gpu::kIndex);
  if (bytes > 0) check_allocation(cudaMalloc(&data_, bytes), bytes);
}

Memory::~Memory() {
  if (data_ != nullptr) cudaFree(data_);
}

void Memory::read(void* to) const {
  const Entered here(Gpu::kIndex);
  if (size_ > 0) check(cudaMemcpy(to, data_, size_, cudaMemcpyDeviceToHost), "cudaMemcpy");
}

void Memory::write(const void* from) {
  const Entered here(Gpu::kIndex);
  if (size_ > 0) check(cudaMemcpy(data_, from, size_, cudaMemcpyHostToDevice), "cudaMemcpy");
}

void read_rows(float* to, const float* from, std::int64_t rows, std::int64_t cols, std::int64_t stride,
               std::uintptr_t stream) {
  const Entered here(Gpu::kIndex);
  if (rows == 0 || cols == 0) return;
  if (stream != 0) check(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream)), "cudaStreamSynchronize");
  const std::size_t width = static_cast<std::size_t>(cols) * sizeof(float);
  check(cudaMemcpy2D(to, width, from, static_cast<std::size_t>(stride) * sizeof(float), width,
                     static_cast<std::size_t>(rows), cudaMemcpyDeviceToHost),
        "cudaMemcpy2D");
}

}  // namespace recfuse::cuda
