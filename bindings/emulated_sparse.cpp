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
  // Small ones cut every row into strips, share it among blocks, leave no room for candidates, and screen nothing; give
  // tables to all rows that have room in one; or leave all columns to the matrix units.
  m.def(
      "set_sparse_limits",
      [](std::int64_t strip_ids, std::int64_t shared_keys, std::int64_t keys_bytes, std::int64_t heavy_work,
         std::int64_t shares, std::int64_t screened_entries, std::int64_t table_ids, std::int64_t table_places,
         std::int64_t ids_per_addition, std::int64_t ids_per_entry, std::int64_t products_per_addition,
         std::int64_t least_gain) {
        limits = {.strip_ids = strip_ids,
                  .shared_keys = shared_keys,
                  .keys_bytes = keys_bytes,
                  .heavy_work = heavy_work,
                  .shares = shares,
                  .screened_entries = screened_entries,
                  .table_ids = table_ids,
                  .table_places = table_places,
                  .ids_per_addition = ids_per_addition,
                  .dense = {.ids_per_entry = ids_per_entry,
                            .products_per_addition = products_per_addition,
                            .least_gain = least_gain}};
      },
      "strip_ids"_a = std::numeric_limits<std::int64_t>::max(), "shared_keys"_a = 4096, "keys_bytes"_a = 256 << 20,
      "heavy_work"_a = 1 << 20, "shares"_a = 4, "screened_entries"_a = cuda::SparseLimits{}.screened_entries,
      "table_ids"_a = cuda::SparseLimits{}.table_ids, "table_places"_a = cuda::SparseLimits{}.table_places,
      "ids_per_addition"_a = cuda::SparseLimits{}.ids_per_addition,
      "ids_per_entry"_a = recfuse::DenseCosts{}.ids_per_entry,
      "products_per_addition"_a = recfuse::DenseCosts{}.products_per_addition,
      "least_gain"_a = recfuse::DenseCosts{}.least_gain);
}
