// The part of DLPack's ABI (github.com/dmlc/dlpack, v0.8, unversioned capsules) that matrices need.
#pragma once

#include <cstdint>

namespace recfuse::bindings::dlpack {

struct Device {
  std::int32_t type;  // 1 host, 2 CUDA
  std::int32_t id;
};

struct DataType {
  std::uint8_t code;  // 0 signed integer, 1 unsigned, 2 float
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: C-contiguous
  std::uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor* self);
};

}  // namespace recfuse::bindings::dlpack
