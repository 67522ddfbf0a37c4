// Memory of the device, for callers that have arrays there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace recfuse::cuda {

/// Where the matrices of a call are. Those in the memory of the device are used in place, after the work that is on
/// these streams now; whoever called may write to them again when the call has returned.
struct Placement {
  std::vector<char> on_device;          // per modality; empty: all in host memory
  std::vector<std::uintptr_t> streams;  // as cudaStream_t: 1 is the legacy one, 2 that of the calling thread
};

struct MemoryInfo {
  std::size_t free = 0, total = 0;  // bytes
};

/// What is said where memory does not suffice: both numbers, and how to know before.
inline std::string out_of_memory_text(std::size_t asked, const MemoryInfo& info) {
  return "fuse_topk: " + std::to_string(asked) + " bytes asked on cuda, " + std::to_string(info.free) + " of " +
         std::to_string(info.total) + " free. plan_memory(..., device='cuda') says beforehand what is needed.";
}

/// Of the device that searches use.
MemoryInfo memory_info();

/// Memory for results that stay on the device; freed when everything that was sent to the device is done.
class Memory {
 public:
  /// Throws DeviceOutOfMemory.
  explicit Memory(std::size_t bytes);
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
  void* data_ = nullptr;
};

/// Copies rows of a matrix on the device, whatever lies between them, to the host; waits for its stream first.
void read_rows(float* to, const float* from, std::int64_t rows, std::int64_t cols, std::int64_t stride,
               std::uintptr_t stream);

}  // namespace recfuse::cuda
