// The parts of the emulated module: a file for each, because what they include takes minutes to compile.
#pragma once

#include <pybind11/pybind11.h>

namespace recfuse::bindings {

void bind_emulated_als(pybind11::module_& m);
void bind_emulated_search(pybind11::module_& m);
void bind_emulated_sparse(pybind11::module_& m);

}  // namespace recfuse::bindings
