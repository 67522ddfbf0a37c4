// The functions of _cuda on the emulator: for tests on machines without a GPU, never part of a wheel.
#include <pybind11/pybind11.h>

#include "emulator.hpp"
#include "errors.hpp"
#include "fused_search.cuh"
#include "ops/fuse_topk.hpp"

namespace {

recfuse::cuda::SearchLimits limits;

class FusedIndex {
 public:
  explicit FusedIndex(const recfuse::FusedItemsArgs& args) : search_(device_, args, limits) {}

  std::int64_t n_modalities() const { return search_.n_modalities(); }
  recfuse::SearchPlan plan() const { return search_.plan(); }
  void topk(const recfuse::FuseTopkArgs& args, const recfuse::TopkOut& out, recfuse::MatrixView<double> parts) const {
    search_.topk(args, out, parts);
  }
  void score_pairs(const recfuse::FuseTopkArgs& args, const recfuse::CsrView& pairs, std::span<float> out,
                   recfuse::MatrixView<double> parts) const {
    search_.score_pairs(args, pairs, out, parts);
  }

 private:
  recfuse::cuda::Emulator device_;
  recfuse::cuda::FusedSearch<recfuse::cuda::Emulator> search_;
};

struct Emulated {
  using FusedIndex = ::FusedIndex;
};

}  // namespace

PYBIND11_MODULE(_cuda_emulated, m) {
  using namespace pybind11::literals;
  m.doc() = "The ops of the GPU on an emulator.";
  recfuse::bindings::translate_device_errors();
  recfuse::bindings::bind_fuse_topk<Emulated>(m);
  m.def("unusable_reason", [] { return ""; });
  // Small ones make every search overflow; for indexes made from now on.
  m.def(
      "set_limits",
      [](std::int64_t capacity, std::int64_t first_items, std::int64_t growth, std::int64_t batch_bytes,
         std::int64_t keys_bytes) { limits = {capacity, first_items, growth, batch_bytes, keys_bytes}; },
      "capacity"_a = 4096, "first_items"_a = 2048, "growth"_a = 4, "batch_bytes"_a = 256 << 20,
      "keys_bytes"_a = 256 << 20);
}
