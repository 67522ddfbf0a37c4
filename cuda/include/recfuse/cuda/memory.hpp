// Memory of the device, for callers that have arrays there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace recfuse::cuda {

/// Where the matrices of a call are. Those in the memory of a device are used in place there, and copied to others,
/// after the work that is on these streams now; whoever called may write to them again when the call has returned.
struct Placement {
  std::vector<char> on_device;  // per modality; empty: all in host memory
  // Per modality, as cudaStream_t of its device: 1 is the legacy one, 2 that of the calling thread, 0 none to wait for.
  std::vector<std::uintptr_t> streams;
};

/// Where a matrix is, as one of several devices sees it. The first two are what `on_device` says where there is one.
enum Place : char { kOnHost, kHere, kOnPeer };

struct MemoryInfo {
  std::size_t free = 0, total = 0;  // bytes
};

/// What is said where memory does not suffice: both numbers, and how to know before.
inline std::string out_of_memory_text(std::size_t asked, const MemoryInfo& info, int device) {
  return "fuse_topk: " + std::to_string(asked) + " bytes asked on cuda:" + std::to_string(device) + ", " +
         std::to_string(info.free) + " of " + std::to_string(info.total) +
         " free. plan_memory(..., device='cuda') says beforehand what is needed.";
}

MemoryInfo memory_info(int device);
/// Of the device in whose memory `address` is.
int device_of(const void* address);

/// Memory for results that stay on the device; freed when everything that was sent to the device is done.
class Memory {
 public:
  /// Throws DeviceOutOfMemory.
  Memory(std::size_t bytes, int device);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* data() const { return data_; }
  std::size_t size() const { return size_; }
  /// To and from the host.
  void read(void* to) const;
  void write(const void* from);

 private:
  std::size_t size_ = 0;
  int device_ = 0;
  void* data_ = nullptr;
};

/// Copies rows of a matrix on the device, whatever lies between them, to the host; waits for its stream first.
void read_rows(float* to, const float* from, std::int64_t rows, std::int64_t cols, std::int64_t stride,
               std::uintptr_t stream);

}  // namespace recfuse::cuda
