// The functions of _cuda on the emulator: for tests on machines without a GPU, never part of a wheel.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <limits>

#include "als_on_devices.cuh"
#include "device_arrays.hpp"
#include "emulator.hpp"
#include "errors.hpp"
#include "neighbour_lists.cuh"
#include "ops/als.hpp"
#include "ops/cosine_knn.hpp"
#include "ops/fuse_topk.hpp"
#include "sharded_search.cuh"
#include "similar_rows.cuh"

namespace {

namespace cuda = recfuse::cuda;

int n_devices = 1;
recfuse::SearchLimits limits;
cuda::AlsLimits als_limits;
std::size_t als_shared_bytes = 227 << 10;
cuda::SparseLimits sparse_limits;

class FusedIndex {
 public:
  FusedIndex(const recfuse::FusedItemsArgs& args, const cuda::Placement& placement, std::span<const int> devices)
      : search_(devices, args, placement, limits) {}

  std::int64_t n_modalities() const { return search_.n_modalities(); }
  recfuse::SearchPlan plan() const { return search_.plan(); }
  void topk(const recfuse::FuseTopkArgs& args, const recfuse::TopkOut& out, recfuse::MatrixView<double> parts,
            const cuda::Placement& placement) const {
    search_.topk(args, out, parts, placement);
  }
  void score_pairs(const recfuse::FuseTopkArgs& args, const recfuse::CsrView& pairs, std::span<float> out,
                   recfuse::MatrixView<double> parts, const cuda::Placement& placement) const {
    search_.score_pairs(args, pairs, out, parts, placement);
  }
  void rank_pairs(const recfuse::FuseTopkArgs& args, const recfuse::CsrView& pairs, const recfuse::PairRanks& out,
                  const cuda::Placement& placement) const {
    search_.rank_pairs(args, pairs, out, placement);
  }

 private:
  cuda::ShardedSearch<cuda::Emulator> search_;
};

/// With as much shared memory as a test says.
struct AlsDevice : cuda::Emulator {
  explicit AlsDevice(int index) : Emulator(index) { set_most_shared_bytes(als_shared_bytes); }
};

class AlsSolver : public cuda::AlsOnDevices<AlsDevice> {
 public:
  AlsSolver(const recfuse::CsrView& user_items, const recfuse::AlsParams& params, int num_threads,
            std::span<const int> devices)
      : AlsOnDevices(devices, user_items, params, als_limits, num_threads) {}
};

/// Its memory is the host's, and says so to DLPack: NumPy reads results without a copy.
struct Emulated {
  class Memory {
   public:
    Memory(std::size_t bytes, int device) : memory_(cuda::EmulatedMemory::of(device)), bytes_(bytes) {
      memory_.note(data(), bytes);
    }
    ~Memory() { memory_.forget(data()); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    void* data() { return bytes_.data(); }
    void read(void* to) const { std::copy(bytes_.begin(), bytes_.end(), static_cast<char*>(to)); }
    void write(const void* from) { std::copy_n(static_cast<const char*>(from), bytes_.size(), bytes_.begin()); }

   private:
    cuda::EmulatedMemory& memory_;
    std::vector<char> bytes_;
  };
  using AlsSolver = ::AlsSolver;
  using FusedIndex = ::FusedIndex;
  using Matrix = recfuse::bindings::PlacedMatrix;
  using Lists = recfuse::bindings::DeviceLists<Emulated>;
  static constexpr int kDlpackType = 1;

  static void read_rows(float* to, const float* from, std::int64_t rows, std::int64_t cols, std::int64_t stride,
                        std::uintptr_t) {
    for (std::int64_t i = 0; i < rows; ++i) std::copy_n(from + i * stride, cols, to + i * cols);
  }
  static cuda::MemoryInfo memory_info(int device) { return cuda::Emulator::memory_info(device); }
  static int device_of(const void* address) { return cuda::EmulatedMemory::device_of(address); }
  static void cosine_knn(const recfuse::CosineKnnArgs& args, const recfuse::TopkOut& out) {
    cuda::Emulator device;
    cuda::SimilarRows<cuda::Emulator>(device, args, sparse_limits).run(out);
  }
  static void neighbour_topk(const recfuse::NeighbourTopkArgs& args, const recfuse::TopkOut& out) {
    cuda::Emulator device;
    cuda::NeighbourLists<cuda::Emulator>(device, args, sparse_limits).run(out);
  }
};

}  // namespace

PYBIND11_MODULE(_cuda_emulated, m) {
  using namespace pybind11::literals;
  m.doc() = "The ops of the GPU on an emulator.";
  recfuse::bindings::translate_device_errors();
  recfuse::bindings::bind_device_arrays<Emulated>(m);
  recfuse::bindings::bind_als<Emulated>(m);
  recfuse::bindings::bind_cosine_knn<Emulated>(m);
  recfuse::bindings::bind_neighbour_topk<Emulated>(m);
  recfuse::bindings::bind_fuse_topk<Emulated>(m);
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
        if (device < 0) return cuda::EmulatedMemory::forget(data);
        cuda::EmulatedMemory::of(device).note(data, bytes);
      },
      "address"_a, "bytes"_a, "device"_a);
  // After so many launches on a device they fail.
  m.def(
      "set_launches", [](int device, std::int64_t left) { cuda::EmulatedMemory::of(device).launches_left = left; },
      "device"_a, "left"_a = std::numeric_limits<std::int64_t>::max());
  // Small ones make every search overflow; for indexes made from now on.
  m.def(
      "set_limits",
      [](std::int64_t capacity, std::int64_t first_items, std::int64_t growth, std::int64_t batch_bytes,
         std::int64_t keys_bytes, std::int64_t launch_bytes, std::int64_t least_block) {
        limits = {.capacity = capacity,
                  .first_items = first_items,
                  .growth = growth,
                  .batch_bytes = batch_bytes,
                  .keys_bytes = keys_bytes,
                  .launch_bytes = launch_bytes,
                  .least_block = least_block};
      },
      "capacity"_a = 4096, "first_items"_a = 2048, "growth"_a = 4, "batch_bytes"_a = 256 << 20,
      "keys_bytes"_a = 256 << 20, "launch_bytes"_a = 20 << 20, "least_block"_a = 8192);
  // Small ones cut every row into strips, share it among blocks, leave no room for candidates, and screen nothing.
  m.def(
      "set_sparse_limits",
      [](std::int64_t strip_ids, std::int64_t shared_keys, std::int64_t keys_bytes, std::int64_t heavy_work,
         std::int64_t shares, std::int64_t screened_entries) {
        sparse_limits = {strip_ids, shared_keys, keys_bytes, heavy_work, shares, screened_entries};
      },
      "strip_ids"_a = std::numeric_limits<std::int64_t>::max(), "shared_keys"_a = 4096, "keys_bytes"_a = 256 << 20,
      "heavy_work"_a = 1 << 20, "shares"_a = 4, "screened_entries"_a = cuda::SparseLimits{}.screened_entries);
  // Small ones cut rows and tables in many parts, and take matrices out of shared memory; for solvers made from now on.
  m.def(
      "set_als_limits",
      [](std::int64_t long_row, std::int64_t gram_rows, std::int64_t parts_bytes, std::int64_t scratch_bytes,
         std::size_t shared_bytes, std::int64_t team_row) {
        als_limits = {long_row, gram_rows, parts_bytes, scratch_bytes, team_row};
        als_shared_bytes = shared_bytes;
      },
      "long_row"_a = 4096, "gram_rows"_a = 256, "parts_bytes"_a = 256 << 20, "scratch_bytes"_a = 1 << 30,
      "shared_bytes"_a = 227 << 10, "team_row"_a = 256);
  // How much memory there is from now on; the most that was in use since the last call.
  m.def(
      "set_memory",
      [](std::size_t total, int device) {
        auto& memory = cuda::EmulatedMemory::of(device);
        memory.total = total;
        return memory.peak.exchange(memory.used);
      },
      "total"_a = std::numeric_limits<std::size_t>::max(), "device"_a = 0);
}
