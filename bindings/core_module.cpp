#include "backends.hpp"
#include "bind_all.hpp"
#include "ops/ceilings.hpp"
#include "ops/device_memory.hpp"
#include "ops/nearest_rows.hpp"
#include "ops/sparse_product.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
  m.doc() = "The ops on the CPU.";
  recfuse::bindings::bind_all<recfuse::bindings::Cpu>(m);
  recfuse::bindings::bind_neighbour_scorer(m);
  recfuse::bindings::bind_ceilings(m);
  recfuse::bindings::bind_device_memory(m);
  recfuse::bindings::bind_nearest_rows(m);
  recfuse::bindings::bind_sparse_product(m);
  m.def("is_canonical_csr", &recfuse::bindings::is_canonical_csr, py::arg("indptr"), py::arg("indices"),
        py::arg("shape"), py::arg("num_threads") = 1);
  m.def("active_isa", &recfuse::active_isa);
  m.def("available_isas", &recfuse::available_isas);
  m.def("set_isa", &recfuse::set_isa, py::arg("name"));
  m.def("default_num_threads", &recfuse::default_num_threads);
  m.def("set_default_num_threads", &recfuse::set_default_num_threads, py::arg("num_threads"));
}
