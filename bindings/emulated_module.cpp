// The functions of _cuda on the emulator: for tests on machines without a GPU, never part of a wheel.
#include <limits>

#include "emulated.hpp"
#include "emulated_memory.hpp"
#include "errors.hpp"

namespace {

int n_devices = 1;

}  // namespace

PYBIND11_MODULE(_cuda_emulated, m) {
  using namespace pybind11::literals;
  using recfuse::cuda::EmulatedMemory;
  m.doc() = "The ops of the GPU on an emulator.";
  recfuse::bindings::translate_device_errors();
  recfuse::bindings::bind_emulated_search(m);
  recfuse::bindings::bind_emulated_als(m);
  recfuse::bindings::bind_emulated_sparse(m);
  m.def("unusable_reason", [](int) { return ""; }, "device"_a = 0);
  m.def("device_count", [] { return n_devices; });
  m.def("device_name", [](int) { return "the emulator"; }, "device"_a);
  // How many there are from now on.
  m.def("set_devices", [](int n) { n_devices = n; }, "n"_a = 1);
  // An array of the host that stands for one in the memory of a device, until `device` is -1.
  m.def(
      "place",
      [](std::uintptr_t address, std::size_t bytes, int device) {
        const void* const data = reinterpret_cast<const void*>(address);
        if (device < 0) return EmulatedMemory::forget(data);
        EmulatedMemory::of(device).note(data, bytes);
      },
      "address"_a, "bytes"_a, "device"_a);
  // After so many launches on a device they fail.
  m.def(
      "set_launches", [](int device, std::int64_t left) { EmulatedMemory::of(device).launches_left = left; },
      "device"_a, "left"_a = std::numeric_limits<std::int64_t>::max());
  // How much memory there is from now on; the most that was in use since the last call.
  m.def(
      "set_memory",
      [](std::size_t total, int device) {
        auto& memory = EmulatedMemory::of(device);
        memory.total = total;
        return memory.peak.exchange(memory.used);
      },
      "total"_a = std::numeric_limits<std::size_t>::max(), "device"_a = 0);
}
