#include "errors.hpp"
#include "ops/fuse_topk.hpp"
#include "recfuse/cuda/fuse_topk.hpp"

namespace {

struct Cuda {
  using FusedIndex = recfuse::cuda::FusedIndex;
};

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "The ops on an NVIDIA GPU, those that there are.";
  recfuse::bindings::translate_device_errors();
  recfuse::bindings::bind_fuse_topk<Cuda>(m);
  m.def("unusable_reason", &recfuse::cuda::unusable_reason);
}
