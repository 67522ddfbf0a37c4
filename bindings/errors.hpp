// Exceptions of the device, as Python's. Those of the standard library pybind11 knows.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>

#include "recfuse/errors.hpp"

namespace recfuse::bindings {

/// DeviceError becomes recfuse.errors.DeviceError, whichever module raises it; DeviceOutOfMemory a MemoryError that
/// keeps its message.
inline void translate_device_errors() {
  pybind11::register_local_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const DeviceOutOfMemory& out_of_memory) {
      PyErr_SetString(PyExc_MemoryError, out_of_memory.what());
    } catch (const DeviceError& device_error) {
      pybind11::set_error(pybind11::module_::import("recfuse.errors").attr("DeviceError"), device_error.what());
    }
  });
}

}  // namespace recfuse::bindings
