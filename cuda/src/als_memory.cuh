// What half-steps need on a device beside their sides: taken in the same order every epoch, so that an epoch after the
// first allocates and copies nothing, and can be recorded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace recfuse::cuda {

template <class Device>
class WorkMemory {
 public:
  explicit WorkMemory(Device& device) : device_(device) {}

  /// From the first again.
  void restart() { next_ = next_constant_ = 0; }

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
    const std::size_t bytes = n * sizeof(T);
    if (next_ == kept_.size()) kept_.emplace_back();
    Bytes& place = kept_[next_];
    if (place.size() < bytes) {
      place = Bytes();  // or there were two for a while
      place = Bytes(device_, bytes);
    }
    ++next_;
    return static_cast<T*>(static_cast<void*>(place.data()));
  }

  /// Values that are the same in every epoch.
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
  std::vector<Bytes> kept_, constants_;
  std::size_t next_ = 0, next_constant_ = 0;
};

}  // namespace recfuse::cuda
