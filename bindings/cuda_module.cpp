#include "device_arrays.hpp"
#include "errors.hpp"
#include "ops/als.hpp"
#include "ops/cosine_knn.hpp"
#include "ops/fuse_topk.hpp"
#include "recfuse/cuda/als.hpp"
#include "recfuse/cuda/cosine_knn.hpp"
#include "recfuse/cuda/fuse_topk.hpp"

namespace {

struct Cuda {
  using AlsSolver = recfuse::cuda::AlsSolver;
  using FusedIndex = recfuse::cuda::FusedIndex;
  using Matrix = recfuse::bindings::PlacedMatrix;
  using Lists = recfuse::bindings::DeviceLists<Cuda>;
  using Memory = recfuse::cuda::Memory;
  static constexpr int kDlpackType = 2;
  static constexpr auto read_rows = recfuse::cuda::read_rows;
  static constexpr auto memory_info = recfuse::cuda::memory_info;
  static constexpr auto device_of = recfuse::cuda::device_of;
  static constexpr auto cosine_knn = recfuse::cuda::cosine_knn;
  static constexpr auto neighbour_topk = recfuse::cuda::neighbour_topk;
};

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "The ops on an NVIDIA GPU, those that there are.";
  recfuse::bindings::translate_device_errors();
  recfuse::bindings::bind_device_arrays<Cuda>(m);
  recfuse::bindings::bind_als<Cuda>(m);
  recfuse::bindings::bind_cosine_knn<Cuda>(m);
  recfuse::bindings::bind_neighbour_topk<Cuda>(m);
  recfuse::bindings::bind_fuse_topk<Cuda>(m);
  m.def("unusable_reason", &recfuse::cuda::unusable_reason, pybind11::arg("device") = 0);
  m.def("device_count", &recfuse::cuda::device_count);
  m.def("device_name", &recfuse::cuda::device_name, pybind11::arg("device"));
}
