#include "als_on_devices.cuh"
#include "device_arrays.hpp"
#include "emulated.hpp"
#include "emulator.hpp"
#include "ops/als.hpp"

namespace {

namespace cuda = recfuse::cuda;

cuda::AlsLimits limits;
std::size_t device_shared_bytes = 227 << 10;

/// With as much shared memory as a test says.
struct AlsDevice : cuda::Emulator {
  explicit AlsDevice(int index) : Emulator(index) { set_most_shared_bytes(device_shared_bytes); }
};

class AlsSolver : public cuda::AlsOnDevices<AlsDevice> {
 public:
  AlsSolver(const recfuse::CsrView& user_items, const recfuse::AlsParams& params, int num_threads,
            std::span<const int> devices, std::int64_t device_bytes)
      : AlsOnDevices(devices, user_items, params, limits_of(device_bytes), num_threads) {}

 private:
  static cuda::AlsLimits limits_of(std::int64_t device_bytes) {
    cuda::AlsLimits of_solver = limits;
    of_solver.room.device_bytes = device_bytes;
    return of_solver;
  }
};

struct EmulatedAls {
  using AlsSolver = ::AlsSolver;
  using Matrix = recfuse::bindings::PlacedMatrix;
};

}  // namespace

void recfuse::bindings::bind_emulated_als(pybind11::module_& m) {
  using namespace pybind11::literals;
  bind_als<EmulatedAls>(m);
  // Small ones cut rows and tables in many parts, take matrices out of shared memory, and let interactions be streamed
  // in many pieces; for solvers made from now on.
  m.def(
      "set_als_limits",
      [](std::int64_t long_row, std::int64_t gram_rows, std::int64_t parts_bytes, std::int64_t scratch_bytes,
         std::size_t shared_bytes, std::int64_t team_row, std::int64_t piece_entries) {
        limits = {long_row, gram_rows, parts_bytes, scratch_bytes, team_row, {.piece_entries = piece_entries}};
        device_shared_bytes = shared_bytes;
      },
      "long_row"_a = 4096, "gram_rows"_a = 256, "parts_bytes"_a = 256 << 20, "scratch_bytes"_a = 1 << 30,
      "shared_bytes"_a = 227 << 10, "team_row"_a = 256, "piece_entries"_a = recfuse::AlsRoom{}.piece_entries);
}
