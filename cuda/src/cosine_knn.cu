#include "device.cuh"
#include "neighbour_lists.cuh"
#include "recfuse/cuda/cosine_knn.hpp"
#include "similar_rows.cuh"

namespace recfuse::cuda {

void cosine_knn(const CosineKnnArgs& args, const TopkOut& out) {
  const Entered here(Gpu::kIndex);
  Gpu gpu;
  SimilarRows<Gpu>(gpu, args).run(out);
}

void neighbour_topk(const NeighbourTopkArgs& args, const TopkOut& out) {
  const Entered here(Gpu::kIndex);
  Gpu gpu;
  NeighbourLists<Gpu>(gpu, args).run(out);
}

}  // namespace recfuse::cuda
