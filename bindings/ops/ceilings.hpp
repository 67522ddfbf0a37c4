// The machine's ceilings; the same for every backend, so not part of bind_all.
#pragma once

#include <pybind11/pybind11.h>

#include "recfuse/ceilings.hpp"

namespace recfuse::bindings {

inline void bind_ceilings(pybind11::module_& m) {
  using namespace pybind11::literals;
  using Unlocked = pybind11::call_guard<pybind11::gil_scoped_release>;
  m.def("measure_flops", &measure_flops, "num_threads"_a = 0, Unlocked());
  m.def("measure_int8_operations", &measure_int8_operations, "num_threads"_a = 0, Unlocked());
  m.def("measure_bandwidth", &measure_bandwidth, "bytes"_a, "num_threads"_a = 0, Unlocked());
  m.def("measure_updates", &measure_updates, "num_threads"_a = 0, Unlocked());
}

}  // namespace recfuse::bindings
