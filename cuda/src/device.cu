#include "device.cuh"

#include <iomanip>
#include <sstream>

namespace recfuse::cuda {
namespace {

std::string gibibytes(std::size_t bytes) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << static_cast<double>(bytes) / (1 << 30) << " GiB";
  return text.str();
}

}  // namespace

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
  name_ = properties.name;
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}

Gpu::~Gpu() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void Gpu::enter() const { check(cudaSetDevice(index_), "cudaSetDevice"); }

}  // namespace recfuse::cuda
