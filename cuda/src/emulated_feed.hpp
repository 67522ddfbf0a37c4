// Copies beside kernels, as late as they may be: what a kernel reads too early, or a copy overwrites too early, is an
// error, though the emulator has one thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "recfuse/errors.hpp"

namespace recfuse::cuda {

/// Places in memory that copies and kernels have in turns, of all emulated devices.
class EmulatedPlaces {
 public:
  enum State { kFree, kOnItsWay, kHere };

  static EmulatedPlaces& all() {
    static EmulatedPlaces& one = *new EmulatedPlaces;
    return one;
  }

  void set(const void* place, std::size_t bytes, State state) {
    const std::lock_guard lock(mutex_);
    places_[address_of(place)] = {address_of(place) + bytes, state};
  }
  void forget(const void* place) {
    const std::lock_guard lock(mutex_);
    places_.erase(address_of(place));
  }
  /// Throws where a kernel is given an address of a place that is not its own now.
  void check_kernel(const void* address) {
    const std::lock_guard lock(mutex_);
    auto after = places_.upper_bound(address_of(address));
    if (after == places_.begin()) return;
    --after;
    if (address_of(address) >= after->second.end || after->second.state == kHere) return;
    throw DeviceError(after->second.state == kFree ? "a kernel has an address in a place that is free"
                                                   : "a kernel does not wait for a copy");
  }

 private:
  struct Place {
    std::uintptr_t end = 0;
    State state = kFree;
  };
  static std::uintptr_t address_of(const void* data) { return reinterpret_cast<std::uintptr_t>(data); }

  std::mutex mutex_;
  std::map<std::uintptr_t, Place> places_;  // by where they begin
};

/// As Gpu::Feed. A copy is made when it is awaited, and until then there is rubbish.
class EmulatedFeed {
 public:
  ~EmulatedFeed() {
    for (const Copy& copy : copies_) EmulatedPlaces::all().forget(copy.to);
  }

  void send(int place, void* to, const void* from, std::size_t bytes) {
    Copy& copy = copies_[place];
    if (copy.state != EmulatedPlaces::kFree) throw DeviceError("a copy overwrites what kernels may read yet");
    EmulatedPlaces::all().forget(copy.to);
    copy = {to, from, bytes, EmulatedPlaces::kFree};
    std::memset(to, kRubbish, bytes);
    enter(copy, EmulatedPlaces::kOnItsWay);
  }
  void await(int place) {
    Copy& copy = copies_[place];
    if (copy.state != EmulatedPlaces::kOnItsWay) throw DeviceError("a copy is awaited that was not sent");
    std::memcpy(copy.to, copy.from, copy.bytes);
    enter(copy, EmulatedPlaces::kHere);
  }
  void free(int place) {
    if (copies_[place].to != nullptr) enter(copies_[place], EmulatedPlaces::kFree);
  }

 private:
  struct Copy {
    void* to = nullptr;
    const void* from = nullptr;
    std::size_t bytes = 0;
    EmulatedPlaces::State state = EmulatedPlaces::kFree;
  };
  static void enter(Copy& copy, EmulatedPlaces::State state) {
    copy.state = state;
    EmulatedPlaces::all().set(copy.to, copy.bytes, state);
  }
  static constexpr int kRubbish = 0xCB;

  Copy copies_[2];
};

}  // namespace recfuse::cuda
