// Similar rows of a sparse matrix and recommendations from them on an NVIDIA GPU: recfuse::cosine_knn and
// recfuse::neighbour_topk, and their bytes.
#pragma once

#include "recfuse/cosine_knn.hpp"

namespace recfuse::cuda {

/// Throw what the functions of the CPU throw, DeviceError and DeviceOutOfMemory.
void cosine_knn(const CosineKnnArgs& args, const TopkOut& out);
void neighbour_topk(const NeighbourTopkArgs& args, const TopkOut& out);

}  // namespace recfuse::cuda
