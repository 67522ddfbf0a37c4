#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "device.cuh"
#include "diagnosis.hpp"
#include "recfuse/cuda/device.hpp"
#include "recfuse/cuda/memory.hpp"

namespace recfuse::cuda {
namespace {

cudaMemPool_t made_pool(int device) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t result = nullptr;
  check(cudaMemPoolCreate(&result, &properties), "cudaMemPoolCreate");
  std::uint64_t everything = ~std::uint64_t{0};
  check(cudaMemPoolSetAttribute(result, cudaMemPoolAttrReleaseThreshold, &everything), "cudaMemPoolSetAttribute");
  return result;
}

/// What is asked once of a device, because the answers take longer than a small search.
struct Known {
  explicit Known(int device) : pool(made_pool(device)) {
    check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  }
  // What searches give back stays here for the next ones: mapping memory anew takes longer than a small search. It is
  // of ours alone, so that nobody else's pool behaves otherwise. Never destroyed: at exit the driver may be gone.
  cudaMemPool_t pool;
  cudaDeviceProp properties{};
};

const Known& known(int device) {
  static std::mutex mutex;
  static std::map<int, Known> of_devices;  // whose elements stay where they are
  const std::lock_guard lock(mutex);
  return of_devices.try_emplace(device, device).first->second;
}

cudaMemPool_t pool(int device) { return known(device).pool; }

/// Held by the pool and used by nobody.
std::size_t idle_bytes(int device) {
  std::uint64_t reserved = 0, used = 0;
  check(cudaMemPoolGetAttribute(pool(device), cudaMemPoolAttrReservedMemCurrent, &reserved), "cudaMemPoolGetAttribute");
  check(cudaMemPoolGetAttribute(pool(device), cudaMemPoolAttrUsedMemCurrent, &used), "cudaMemPoolGetAttribute");
  return reserved - used;
}

/// Of a device that the calling thread has entered.
MemoryInfo memory_of_device(int device) {
  MemoryInfo info;
  check(cudaMemGetInfo(&info.free, &info.total), "cudaMemGetInfo");
  info.free += idle_bytes(device);
  return info;
}

/// Asks again when the pool has given back what it holds: that may be what is missing.
template <class Ask>
void allocate_by(const Ask& ask, std::size_t bytes, int device, const char* call) {
  cudaError_t status = ask();
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    check(cudaMemPoolTrimTo(pool(device), 0), "cudaMemPoolTrimTo");
    status = ask();
  }
  if (status != cudaErrorMemoryAllocation) return check(status, call);
  cudaGetLastError();
  throw DeviceOutOfMemory(out_of_memory_text(bytes, memory_of_device(device), device));
}

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

std::string unusable_reason(int device) {
  DeviceFacts facts;
  facts.runtime = CUDART_VERSION;
  facts.visible = std::getenv("CUDA_VISIBLE_DEVICES");
#ifdef RECFUSE_CUDA_BUILT_FOR
  facts.built_for = RECFUSE_CUDA_BUILT_FOR;
#endif
  cudaError_t status = cudaDriverGetVersion(&facts.driver);
  if (status == cudaSuccess && facts.driver != 0) status = cudaGetDeviceCount(&facts.count);
  cudaDeviceProp properties{};
  if (status == cudaSuccess && facts.count > device) {
    status = cudaGetDeviceProperties(&properties, device);
    facts.name = properties.name;
    facts.major = properties.major;
    facts.minor = properties.minor;
    facts.has_pools = properties.memoryPoolsSupported != 0;
  }
  if (status != cudaSuccess) {
    cudaGetLastError();
    facts.status = static_cast<int>(status);
    facts.status_text = std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ")";
  }
  return unusable_reason(facts);
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

std::string device_name(int device) { return known(device).properties.name; }

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // ours: it is told once
  const std::string more = advice(static_cast<int>(status));
  throw DeviceError(std::string(call) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")" +
                    (more.empty() ? "" : "; " + more));
}

Entered::Entered(int index) {
  check(cudaGetDevice(&before_), "cudaGetDevice");
  check(cudaSetDevice(index), "cudaSetDevice");
}

Entered::~Entered() { cudaSetDevice(before_); }

void* allocated(std::size_t bytes, int device, cudaStream_t stream) {
  void* data = nullptr;
  allocate_by([&] { return cudaMallocFromPoolAsync(&data, bytes, pool(device), stream); }, bytes, device,
              "cudaMallocFromPoolAsync");
  return data;
}

void* pinned(std::size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMallocHost(&data, bytes);
  if (status != cudaErrorMemoryAllocation) check(status, "cudaMallocHost");
  if (status == cudaSuccess) return data;
  cudaGetLastError();
  throw DeviceOutOfMemory("fuse_topk: the host has no " + std::to_string(bytes) + " bytes more of pinned memory.");
}

Gpu::Gpu(int index) : index_(index) {
  const cudaDeviceProp& properties = known(index).properties;  // now: later it may be too late to throw
  multiprocessors_ = properties.multiProcessorCount;
  most_shared_bytes_ = properties.sharedMemPerBlockOptin;
  reads_pages_of_host_ = properties.pageableMemoryAccessUsesHostPageTables != 0;
  name_ = properties.name;
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  has_hopper_ = properties.major == 9 && properties.minor == 0 && runs_hopper(*this);
}

Gpu::~Gpu() {
  // What an index had goes back to the device, whose memory others want, too. Errors have nobody to hear of them.
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
  cudaMemPoolTrimTo(pool(index_), 0);
}

std::vector<char> Gpu::receive(std::span<const MatrixView<const float>> matrices, const Placement& placement) {
  // What has failed by now is not of this call.
  const cudaError_t before = cudaStreamQuery(stream_);
  if (before != cudaErrorNotReady) check(before, "before the search");
  std::vector<char> places(placement.on_device);
  for (std::size_t m = 0; m < places.size(); ++m) {
    if (places[m] == kOnHost || matrices[m].rows == 0) continue;
    cudaPointerAttributes attributes{};
    check(cudaPointerGetAttributes(&attributes, matrices[m].data), "cudaPointerGetAttributes");
    if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged) {
      throw std::invalid_argument("fuse_topk: arrays on a GPU must be in its memory; got a pointer of type " +
                                  std::to_string(attributes.type));
    }
    const bool here = attributes.type == cudaMemoryTypeManaged || attributes.device == index_;
    places[m] = here ? kHere : kOnPeer;
    if (placement.streams[m] != 0) wait_for(placement.streams[m], attributes.device);
  }
  return places;
}

/// Whatever device the stream is of.
void Gpu::wait_for(std::uintptr_t stream, int device) {
  cudaEvent_t written = nullptr;
  {
    const Entered there(device);  // whose legacy stream, or stream of the calling thread, may be meant
    check(cudaEventCreateWithFlags(&written, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    const cudaError_t recorded = cudaEventRecord(written, reinterpret_cast<cudaStream_t>(stream));
    if (recorded != cudaSuccess) cudaEventDestroy(written);
    check(recorded, "cudaEventRecord");
  }
  const cudaError_t waits = cudaStreamWaitEvent(stream_, written, 0);
  cudaEventDestroy(written);  // when it has happened
  check(waits, "cudaStreamWaitEvent");
}

thread_local cudaStream_t Gpu::recording_ = nullptr;
thread_local bool Gpu::silent_ = false;

void Gpu::begin_recording() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  const cudaError_t begun = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  if (begun != cudaSuccess) cudaStreamDestroy(stream);
  check(begun, "cudaStreamBeginCapture");
  recording_ = stream;
}

void Gpu::end_recording(Recording* recording) {
  const cudaStream_t stream = std::exchange(recording_, nullptr);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  cudaStreamDestroy(stream);
  const bool wanted = ended == cudaSuccess && recording != nullptr;
  const cudaError_t made = wanted ? cudaGraphInstantiate(&recording->graph_, graph, 0) : cudaSuccess;
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (recording == nullptr) {
    if (ended != cudaSuccess) cudaGetLastError();  // ours: another exception is on its way
    return;
  }
  check(ended, "cudaStreamEndCapture");
  check(made, "cudaGraphInstantiate");
}

Gpu::Recording::~Recording() {
  if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
}

void Gpu::copy_from_host(void* to, const void* from, std::size_t bytes) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, to), "cudaPointerGetAttributes");
  if (attributes.type == cudaMemoryTypeDevice) {
    check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  } else {
    std::memcpy(to, from, bytes);
  }
}

void Gpu::connect(std::span<const int> devices) {
  for (const int one : devices) {
    for (const int other : devices) {
      int can = 0;
      if (one != other) check(cudaDeviceCanAccessPeer(&can, other, one), "cudaDeviceCanAccessPeer");
      if (can == 0) continue;
      // Of our own pool alone: what other libraries have stays as it is.
      cudaMemAccessDesc access{};
      access.location.type = cudaMemLocationTypeDevice;
      access.location.id = other;
      access.flags = cudaMemAccessFlagsProtReadWrite;
      check(cudaMemPoolSetAccess(pool(one), &access, 1), "cudaMemPoolSetAccess");
    }
  }
}

/// The driver goes through host memory where the devices do not see each other.
void Gpu::copy_from_peer(void* to, const void* from, std::int64_t rows, std::size_t width, std::size_t pitch,
                         cudaStream_t stream) {
  if (rows == 0 || width == 0) return;
  const int here = device_of(to), there = device_of(from);
  if (pitch == width) {
    const std::size_t bytes = static_cast<std::size_t>(rows) * width;
    return check(cudaMemcpyPeerAsync(to, here, from, there, bytes, stream), "cudaMemcpyPeerAsync");
  }
  cudaMemcpy3DPeerParms copy{};
  const auto n = static_cast<std::size_t>(rows);
  copy.dstPtr = make_cudaPitchedPtr(to, width, width, n);
  copy.dstDevice = here;
  copy.srcPtr = make_cudaPitchedPtr(const_cast<void*>(from), pitch, width, n);
  copy.srcDevice = there;
  copy.extent = make_cudaExtent(width, n, 1);
  check(cudaMemcpy3DPeerAsync(&copy, stream), "cudaMemcpy3DPeerAsync");
}

MemoryInfo memory_info(int device) {
  const Entered here(device);
  return memory_of_device(device);
}

int device_of(const void* address) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, address), "cudaPointerGetAttributes");
  return attributes.device;
}

Memory::Memory(std::size_t bytes, int device) : size_(bytes), device_(device) {
  const Entered here(device);
  if (bytes > 0) allocate_by([&] { return cudaMalloc(&data_, bytes); }, bytes, device, "cudaMalloc");
}

Memory::~Memory() {
  if (data_ != nullptr) cudaFree(data_);
}

void Memory::read(void* to) const {
  const Entered here(device_);
  if (size_ > 0) check(cudaMemcpy(to, data_, size_, cudaMemcpyDeviceToHost), "cudaMemcpy");
}

void Memory::write(const void* from) {
  const Entered here(device_);
  if (size_ == 0) return;
  check(cudaMemcpy(data_, from, size_, cudaMemcpyHostToDevice), "cudaMemcpy");
  // From pageable memory that returns when the source is read, before the last of it has arrived; and the streams of
  // searches do not wait for the legacy one.
  check(cudaStreamSynchronize(cudaStreamLegacy), "cudaStreamSynchronize");
}

void read_rows(float* to, const float* from, std::int64_t rows, std::int64_t cols, std::int64_t stride,
               std::uintptr_t stream) {
  if (rows == 0 || cols == 0) return;
  const Entered there(device_of(from));
  if (stream != 0) check(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream)), "cudaStreamSynchronize");
  const std::size_t width = static_cast<std::size_t>(cols) * sizeof(float);
  check(cudaMemcpy2D(to, width, from, static_cast<std::size_t>(stride) * sizeof(float), width,
                     static_cast<std::size_t>(rows), cudaMemcpyDeviceToHost),
        "cudaMemcpy2D");
}

}  // namespace recfuse::cuda
