// Similar rows of a sparse matrix on an NVIDIA GPU: recfuse::cosine_knn, and its bytes.
#pragma once

#include "recfuse/cosine_knn.hpp"

namespace recfuse::cuda {

/// Throws what recfuse::cosine_knn throws, DeviceError and DeviceOutOfMemory.
void cosine_knn(const CosineKnnArgs& args, const TopkOut& out);

}  // namespace recfuse::cuda
