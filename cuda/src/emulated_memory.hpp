// The memory of emulated devices: how much there is, whose an address is, and launches that fail when a test wants it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <string>

#include "emulated_feed.hpp"
#include "recfuse/cuda/memory.hpp"
#include "recfuse/errors.hpp"

namespace recfuse::cuda {

/// Of one device; all emulators of that device share it as they would share a GPU.
class EmulatedMemory {
 public:
  static constexpr int kDevices = 8;

  static EmulatedMemory& of(int device) {
    static std::array<EmulatedMemory, kDevices>& all = *[] {
      auto* const made = new std::array<EmulatedMemory, kDevices>;  // for as long as there may be arrays
      for (int i = 0; i < kDevices; ++i) (*made)[static_cast<std::size_t>(i)].device_ = i;
      return made;
    }();
    return all.at(static_cast<std::size_t>(device));
  }

  std::atomic<std::size_t> total{std::numeric_limits<std::size_t>::max()}, used{0}, peak{0};
  std::atomic<std::int64_t> launches_left{
      std::numeric_limits<std::int64_t>::max()};  // before one fails, and all after it
  std::atomic<std::int64_t> launches{0}, recordings{0};

  void take(std::size_t bytes) {
    const std::size_t before = used.fetch_add(bytes);
    if (bytes > total || before > total - bytes) {
      used -= bytes;
      throw DeviceOutOfMemory(out_of_memory_text(bytes, {total - std::min(before, total.load()), total}, device_));
    }
    std::size_t most = peak;
    while (most < before + bytes && !peak.compare_exchange_weak(most, before + bytes)) continue;
  }
  void give_back(std::size_t bytes) { used -= bytes; }
  MemoryInfo info() const { return {total - std::min<std::size_t>(used, total), total}; }

  void count_launch() {
    ++launches;
    if (launches_left.fetch_sub(1) <= 0) throw DeviceError("a kernel has failed, as a test wanted");
  }

  void count_recording() { ++recordings; }

  /// Says that an allocation is this device's; until forget().
  void note(const void* data, std::size_t bytes) {
    const std::lock_guard lock(registry().mutex);
    registry().owners[address_of(data)] = {address_of(data) + bytes, device_};
  }
  static void forget(const void* data) {
    const std::lock_guard lock(registry().mutex);
    registry().owners.erase(address_of(data));
  }
  /// The device where nobody names one, for what was not noted.
  static int device_of(const void* data) {
    const int owner = owner_of(address_of(data));
    return owner < 0 ? 0 : owner;
  }

  /// Throws DeviceError where an address is in the memory of another device.
  void check_reaches(const void* address, const char* who) const {
    const int owner = owner_of(address_of(address));
    if (owner < 0 || owner == device_) return;
    throw DeviceError(std::string(who) + " on cuda:" + std::to_string(device_) +
                      " has an address in the memory of cuda:" + std::to_string(owner));
  }
  /// The same for whatever could be an address in what a kernel is given.
  template <class Body>
  void check_reaches_of([[maybe_unused]] Body body) const {
#if __has_builtin(__builtin_clear_padding)  // else half an address of before may lie between the members
    __builtin_clear_padding(&body);
    for (std::size_t at = 0; at + sizeof(void*) <= sizeof body; at += sizeof(void*)) {
      void* word = nullptr;
      std::memcpy(&word, reinterpret_cast<const char*>(&body) + at, sizeof word);
      check_reaches(word, "a kernel");
      EmulatedPlaces::all().check_kernel(word);
    }
#endif
  }

 private:
  struct Owner {
    std::uintptr_t end = 0;
    int device = 0;
  };
  struct Registry {
    std::mutex mutex;
    std::map<std::uintptr_t, Owner> owners;  // by where an allocation begins
  };
  static Registry& registry() {
    static Registry& one = *new Registry;
    return one;
  }
  static std::uintptr_t address_of(const void* data) { return reinterpret_cast<std::uintptr_t>(data); }
  static int owner_of(std::uintptr_t address) {
    const std::lock_guard lock(registry().mutex);
    auto after = registry().owners.upper_bound(address);
    if (after == registry().owners.begin()) return -1;
    --after;
    return address < after->second.end ? after->second.device : -1;
  }

  int device_ = 0;
};

}  // namespace recfuse::cuda
