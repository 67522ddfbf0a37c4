// What half-steps need on a device beside their sides: places in one allocation, which are the same every time, so that
// launches can be recorded.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace recfuse::cuda {

template <class Device>
class WorkMemory {
 public:
  static constexpr std::size_t kAlignment = 256;  // as what is allocated by itself

  explicit WorkMemory(Device& device) : device_(device) {}

  /// Makes room for what f takes, and uploads its constants: f is called, and its launches come to nothing.
  template <class F>
  void prepare(const F& f) {
    constants_.clear();
    most_ = 0;
    counts_ = true;
    restart();
    device_.without_launches(f);
    counts_ = false;
    if (memory_.size() >= most_) return;
    memory_ = Bytes();  // or there were two for a while
    memory_ = Bytes(device_, most_);
  }
  /// From the first again; for what was prepared.
  void restart() { next_ = next_constant_ = 0; }
  /// Both, and f.
  template <class F>
  void run(const F& f) {
    prepare(f);
    restart();
    f();
  }

  /// What is taken meanwhile may be taken again.
  class Scope {
   public:
    explicit Scope(WorkMemory& memory) : memory_(memory), next_(memory.next_) {}
    ~Scope() { memory_.next_ = next_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    WorkMemory& memory_;
    std::size_t next_;
  };

  template <class T>
  T* take(std::size_t n) {
    const std::size_t begin = next_, bytes = n * sizeof(T);
    next_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (counts_) {
      most_ = std::max(most_, next_);
      return reinterpret_cast<T*>(kAlignment + begin);  // which nobody reads: nothing is launched
    }
    char* const place = memory_.data() + begin;
    if (bytes > 0) device_.lend(place, bytes, memory_.size() - begin - bytes);
    return static_cast<T*>(static_cast<void*>(place));
  }

  /// Values that are the same every time.
  template <class T>
  const T* constant(std::span<const T> values) {
    if (next_constant_ == constants_.size()) {
      const auto* const bytes = static_cast<const char*>(static_cast<const void*>(values.data()));
      constants_.emplace_back(device_, std::span(bytes, values.size_bytes()));
    }
    return static_cast<const T*>(static_cast<const void*>(constants_[next_constant_++].data()));
  }

 private:
  using Bytes = typename Device::template Array<char>;
  Device& device_;
  Bytes memory_;
  std::vector<Bytes> constants_;
  std::size_t next_ = 0, next_constant_ = 0, most_ = 0;
  bool counts_ = false;
};

}  // namespace recfuse::cuda
