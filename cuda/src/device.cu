#include <iomanip>
#include <sstream>

#include "device.cuh"
#include "recfuse/cuda/device.hpp"

namespace recfuse::cuda {
namespace {

std::string gibibytes(std::size_t bytes) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << static_cast<double>(bytes) / (1 << 30) << " GiB";
  return text.str();
}

/// 13000 is 13.0.
std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

}  // namespace

std::string unusable_reason() {
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    cudaGetLastError();
    return "there is no NVIDIA driver on this machine";
  }
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
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
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  throw DeviceOutOfMemory("fuse_topk: " + gibibytes(bytes) + " asked on cuda, " + gibibytes(free) + " of " +
                          gibibytes(total) + " free");
}

Gpu::Gpu(int index) : index_(index) {
  enter();
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  multiprocessors_ = properties.multiProcessorCount;
  most_shared_bytes_ = properties.sharedMemPerBlockOptin;
  name_ = properties.name;
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}

Gpu::~Gpu() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void Gpu::enter() const { check(cudaSetDevice(index_), "cudaSetDevice"); }

}  // namespace recfuse::cuda
