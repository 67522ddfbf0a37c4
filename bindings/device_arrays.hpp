// Arrays in the memory of a device: those of other libraries as views, and results that stay there.
//
// A Device has: Memory, with data(), size(), read(to) and write(from); kDlpackType, what DLPack calls it; and
// read_rows(), which copies a matrix to the host.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <variant>

#include "arrays.hpp"
#include "dlpack.hpp"
#include "recfuse/cuda/memory.hpp"

namespace recfuse::bindings {

/// Address, rows, columns, elements from row to row, stream (0: nothing to wait for), and what keeps it alive: what
/// _device_arrays.py makes of an array of another library.
using DeviceMatrix = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::int64_t, std::uintptr_t, py::object>;
using PlacedMatrix = std::variant<FloatMatrix, DeviceMatrix>;

inline MatrixView<const float> view(const DeviceMatrix& matrix) {
  const auto& [address, rows, cols, stride, stream, owner] = matrix;
  return {reinterpret_cast<const float*>(address), rows, cols, stride};
}

inline std::vector<MatrixView<const float>> views(const std::vector<PlacedMatrix>& matrices) {
  std::vector<MatrixView<const float>> result;
  for (const auto& matrix : matrices) {
    result.push_back(std::visit([](const auto& some) { return view(some); }, matrix));
  }
  return result;
}

inline cuda::Placement placement_of(const std::vector<PlacedMatrix>& matrices) {
  cuda::Placement placement;
  for (const auto& matrix : matrices) {
    const auto* on_device = std::get_if<DeviceMatrix>(&matrix);
    placement.on_device.push_back(on_device != nullptr ? 1 : 0);
    placement.streams.push_back(on_device != nullptr ? std::get<4>(*on_device) : 0);
  }
  return placement;
}

inline bool all_on_device(const std::vector<PlacedMatrix>& matrices) {
  return std::all_of(matrices.begin(), matrices.end(),
                     [](const auto& matrix) { return std::holds_alternative<DeviceMatrix>(matrix); });
}

/// An array of results in the memory of the device, which other libraries take over without a copy.
template <class Device>
class DeviceArray {
 public:
  DeviceArray(std::vector<std::int64_t> shape, const py::dtype& dtype, int device)
      : shape_(std::move(shape)),
        dtype_(dtype),
        device_(device),
        memory_(std::make_shared<typename Device::Memory>(n_bytes(), device)) {}

  static DeviceArray from_host(const py::array& array, int device) {
    const py::array whole = py::array::ensure(array, py::array::c_style);
    DeviceArray result({whole.shape(), whole.shape() + whole.ndim()}, whole.dtype(), device);
    result.memory_->write(whole.data());
    return result;
  }

  template <class T>
  T* data() const {
    return static_cast<T*>(memory_->data());
  }
  std::int64_t size() const {
    return std::accumulate(shape_.begin(), shape_.end(), std::int64_t{1}, std::multiplies<>());
  }
  std::size_t n_bytes() const { return static_cast<std::size_t>(size()) * static_cast<std::size_t>(dtype_.itemsize()); }
  std::int64_t n_rows() const { return shape_.at(0); }
  py::tuple shape() const { return py::tuple(py::cast(shape_)); }
  py::dtype dtype() const { return dtype_; }

  py::array to_host() const {
    py::array result(dtype_, shape_);
    memory_->read(result.mutable_data());
    return result;
  }

  /// The emulator's memory is the host's, which has one number.
  dlpack::Device dlpack_device() const { return {Device::kDlpackType, Device::kDlpackType == 1 ? 0 : device_}; }

  /// Version 3; no stream, because results are complete.
  py::dict cuda_array_interface() const {
    using namespace py::literals;
    return py::dict("shape"_a = shape(), "typestr"_a = dtype_.attr("str"),
                    "data"_a = py::make_tuple(reinterpret_cast<std::uintptr_t>(memory_->data()), false),
                    "strides"_a = py::none(), "version"_a = 3, "stream"_a = py::none());
  }

  py::capsule dlpack() const {
    struct Exported {
      dlpack::ManagedTensor managed;
      std::vector<std::int64_t> shape;
      std::shared_ptr<typename Device::Memory> memory;
    };
    auto* exported = new Exported{{}, shape_, memory_};
    const std::uint8_t code = dtype_.kind() == 'f' ? 2 : 0;
    exported->managed.tensor = {memory_->data(),
                                dlpack_device(),
                                static_cast<std::int32_t>(shape_.size()),
                                {code, static_cast<std::uint8_t>(8 * dtype_.itemsize()), 1},
                                exported->shape.data(),
                                nullptr,
                                0};
    exported->managed.context = exported;
    exported->managed.deleter = [](dlpack::ManagedTensor* self) { delete static_cast<Exported*>(self->context); };
    return py::capsule(&exported->managed, "dltensor", [](PyObject* capsule) {
      // Who took it over has renamed it.
      if (PyCapsule_IsValid(capsule, "dltensor") == 0) return;
      auto* managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
      managed->deleter(managed);
    });
  }

 private:
  std::vector<std::int64_t> shape_;
  py::dtype dtype_;
  int device_;  // its number
  std::shared_ptr<typename Device::Memory> memory_;
};

/// Lists of a search in the memory of the device.
template <class Device>
class DeviceLists {
 public:
  DeviceLists(std::int64_t n, std::int64_t k, std::int64_t n_parts, int device)
      : n_(n),
        k_(k),
        n_parts_(n_parts),
        ids_({n, k}, py::dtype::of<std::int32_t>(), device),
        scores_({n, k}, py::dtype::of<float>(), device),
        parts_({n_parts > 0 ? n : 0, k, n_parts}, py::dtype::of<double>(), device) {}

  TopkOut lists() { return {{ids_.template data<std::int32_t>(), n_, k_}, {scores_.template data<float>(), n_, k_}}; }
  MatrixView<double> parts() {
    return n_parts_ > 0 ? MatrixView<double>{parts_.template data<double>(), n_, k_ * n_parts_} : MatrixView<double>{};
  }
  py::tuple result() {
    if (n_parts_ == 0) return py::make_tuple(ids_, scores_);
    return py::make_tuple(ids_, scores_, parts_);
  }

 private:
  std::int64_t n_, k_, n_parts_;
  DeviceArray<Device> ids_, scores_, parts_;
};

/// What a capsule holds: address, shape, strides in elements or None, dtype (or what stands for one), number of the
/// device.
inline py::tuple capsule_parts(const py::capsule& capsule) {
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor") == 0) throw py::type_error("no capsule of DLPack before version 1");
  const auto& tensor = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"))->tensor;
  const auto tuple_of = [&](const std::int64_t* numbers) {
    return py::tuple(py::cast(std::vector<std::int64_t>(numbers, numbers + tensor.ndim)));
  };
  const bool plain = tensor.dtype.lanes == 1 && tensor.dtype.code == 2;
  const std::string dtype = (plain ? "float" : "type " + std::to_string(tensor.dtype.code) + " of ") +
                            std::to_string(tensor.dtype.bits) + (plain ? "" : " bits");
  return py::make_tuple(reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset, tuple_of(tensor.shape),
                        tensor.strides == nullptr ? py::object(py::none()) : py::object(tuple_of(tensor.strides)),
                        dtype, tensor.device.id);
}

template <class Device>
void bind_device_arrays(py::module_& m) {
  using namespace py::literals;
  using Results = DeviceArray<Device>;
  py::class_<Results>(m, "DeviceArray")
      .def(py::init(&Results::from_host), "array"_a, "device"_a = 0)
      .def_property_readonly("shape", &Results::shape)
      .def_property_readonly("dtype", &Results::dtype)
      .def_property_readonly("__cuda_array_interface__", &Results::cuda_array_interface)
      .def("__len__", &Results::n_rows)
      .def(
          "__array__",
          [](const Results& self, const py::object& dtype, const py::object&) {
            py::array host = self.to_host();
            return dtype.is_none() ? py::object(host) : py::object(host.attr("astype")(dtype));
          },
          "dtype"_a = py::none(), "copy"_a = py::none())
      // Nothing is left to wait for, whatever the stream of the consumer; and it is the array itself that is given.
      .def(
          "__dlpack__",
          [](const Results& self, const py::object&, const py::object&, const py::object&, const py::object& copy) {
            if (!copy.is_none() && copy.cast<bool>())
              throw py::buffer_error("results are given as they are, not copied");
            return self.dlpack();
          },
          py::kw_only(), "stream"_a = py::none(), "max_version"_a = py::none(), "dl_device"_a = py::none(),
          "copy"_a = py::none())
      .def("__dlpack_device__", [](const Results& self) {
        const dlpack::Device where = self.dlpack_device();
        return py::make_tuple(where.type, where.id);
      });
  m.def("capsule_parts", &capsule_parts, "capsule"_a);
  m.def(
      "to_host",
      [](const DeviceMatrix& matrix) {
        const auto from = view(matrix);
        auto to = new_matrix<float>(from.rows, from.cols);
        float* const data = to.mutable_data();
        {
          const py::gil_scoped_release nogil;  // the stream may have much to do
          Device::read_rows(data, from.data, from.rows, from.cols, from.stride, std::get<4>(matrix));
        }
        return to;
      },
      "matrix"_a);
  m.def(
      "memory_info",
      [](int device) {
        const cuda::MemoryInfo info = Device::memory_info(device);
        return py::make_tuple(info.free, info.total);
      },
      "device"_a = 0);
  m.def(
      "device_of", [](std::uintptr_t address) { return Device::device_of(reinterpret_cast<const void*>(address)); },
      "address"_a);
}

}  // namespace recfuse::bindings
