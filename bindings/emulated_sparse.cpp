#include <limits>

#include "emulated.hpp"
#include "emulator.hpp"
#include "neighbour_lists.cuh"
#include "ops/cosine_knn.hpp"
#include "similar_rows.cuh"

namespace {

namespace cuda = recfuse::cuda;

cuda::SparseLimits limits;

struct EmulatedSparse {
  static void cosine_knn(const recfuse::CosineKnnArgs& args, const recfuse::TopkOut& out) {
    cuda::Emulator device;
    cuda::SimilarRows<cuda::Emulator>(device, args, limits).run(out);
  }
  static void neighbour_topk(const recfuse::NeighbourTopkArgs& args, const recfuse::TopkOut& out) {
    cuda::Emulator device;
    cuda::NeighbourLists<cuda::Emulator>(device, args, limits).run(out);
  }
};

}  // namespace

void recfuse::bindings::bind_emulated_sparse(pybind11::module_& m) {
  using namespace pybind11::literals;
  bind_cosine_knn<EmulatedSparse>(m);
  bind_neighbour_topk<EmulatedSparse>(m);
  // Small ones cut every row into strips, share it among blocks, leave no room for candidates, and screen nothing; or
  // give tables to all rows that have room in one.
  m.def(
      "set_sparse_limits",
      [](std::int64_t strip_ids, std::int64_t shared_keys, std::int64_t keys_bytes, std::int64_t heavy_work,
         std::int64_t shares, std::int64_t screened_entries, std::int64_t table_ids, std::int64_t table_places,
         std::int64_t ids_per_addition) {
        limits = {strip_ids,        shared_keys, keys_bytes,   heavy_work,      shares,
                  screened_entries, table_ids,   table_places, ids_per_addition};
      },
      "strip_ids"_a = std::numeric_limits<std::int64_t>::max(), "shared_keys"_a = 4096, "keys_bytes"_a = 256 << 20,
      "heavy_work"_a = 1 << 20, "shares"_a = 4, "screened_entries"_a = cuda::SparseLimits{}.screened_entries,
      "table_ids"_a = cuda::SparseLimits{}.table_ids, "table_places"_a = cuda::SparseLimits{}.table_places,
      "ids_per_addition"_a = cuda::SparseLimits{}.ids_per_addition);
}
