#include <algorithm>

#include "device_arrays.hpp"
#include "emulated.hpp"
#include "emulator.hpp"
#include "ops/fuse_topk.hpp"
#include "sharded_search.cuh"

namespace {

namespace cuda = recfuse::cuda;

recfuse::SearchLimits limits;

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

/// Its memory is the host's, and says so to DLPack: NumPy reads results without a copy.
struct EmulatedSearch {
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
  using FusedIndex = ::FusedIndex;
  using Matrix = recfuse::bindings::PlacedMatrix;
  using Lists = recfuse::bindings::DeviceLists<EmulatedSearch>;
  static constexpr int kDlpackType = 1;

  static void read_rows(float* to, const float* from, std::int64_t rows, std::int64_t cols, std::int64_t stride,
                        std::uintptr_t) {
    for (std::int64_t i = 0; i < rows; ++i) std::copy_n(from + i * stride, cols, to + i * cols);
  }
  static cuda::MemoryInfo memory_info(int device) { return cuda::Emulator::memory_info(device); }
  static int device_of(const void* address) { return cuda::EmulatedMemory::device_of(address); }
};

}  // namespace

void recfuse::bindings::bind_emulated_search(pybind11::module_& m) {
  using namespace pybind11::literals;
  bind_device_arrays<EmulatedSearch>(m);
  bind_fuse_topk<EmulatedSearch>(m);
  // Small ones make every search overflow; for indexes made from now on.
  m.def(
      "set_limits",
      [](std::int64_t capacity, std::int64_t first_items, std::int64_t growth, std::int64_t batch_bytes,
         std::int64_t keys_bytes, std::int64_t launch_bytes, std::int64_t least_block, std::int64_t pairs_bytes) {
        limits = {.capacity = capacity,
                  .first_items = first_items,
                  .growth = growth,
                  .batch_bytes = batch_bytes,
                  .keys_bytes = keys_bytes,
                  .launch_bytes = launch_bytes,
                  .least_block = least_block,
                  .pairs_bytes = pairs_bytes};
      },
      "capacity"_a = 4096, "first_items"_a = 2048, "growth"_a = 4, "batch_bytes"_a = 256 << 20,
      "keys_bytes"_a = 256 << 20, "launch_bytes"_a = 20 << 20, "least_block"_a = 8192,
      "pairs_bytes"_a = recfuse::SearchLimits{}.pairs_bytes);
}
