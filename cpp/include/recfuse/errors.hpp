// What can go wrong on a device or with a file, beside what the standard exceptions name.
#pragma once

#include <new>
#include <stdexcept>
#include <string>

namespace recfuse {

/// A device, or its driver, does not do what it was asked to.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The device has not got so much memory. The object that asked stays usable.
class DeviceOutOfMemory : public std::bad_alloc {
 public:
  explicit DeviceOutOfMemory(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

/// A file is damaged, or is not what its reader understands.
class FormatError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace recfuse
