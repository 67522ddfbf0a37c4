// A model file: named arrays and JSON metadata, mapped into memory. docs/model-file.md has the format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "recfuse/errors.hpp"

namespace recfuse {

enum class DType { kBool, kU8, kI8, kU16, kI16, kF16, kU32, kI32, kF32, kU64, kI64, kF64 };

std::int64_t item_size(DType dtype);
/// Its name in the file: "F32".
std::string_view name_of(DType dtype);

/// An array of a file: little endian, in C order, 64-byte aligned. Views the file, which must outlive it.
struct StoredArray {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;

  std::int64_t size() const { return static_cast<std::int64_t>(bytes.size()) / item_size(dtype); }

  /// The numbers, which must be of this type: as<float>() of kF32, and so on. Throws FormatError.
  template <class T>
  std::span<const T> as() const;
};

/// Which arrays are compared with their checksums when a file is opened. The header always is.
enum class Verify {
  kSmall,    // those of files up to ModelFile::kCheckedBytes
  kAll,      // every one, which reads the whole file
  kNothing,  // damage in an array changes its values unseen
};

/// An open file. No size in it is believed before it is compared with the size of the file, whatever Verify says: what
/// can be reached through this class lies inside of the file. What the arrays hold is for their reader to check.
///
/// The file is mapped: pages are read when they are touched, and shared between processes. Replace files by renaming,
/// as recfuse does; one that is cut short in place while it is open takes the process down (SIGBUS), as any mapped
/// file.
class ModelFile {
 public:
  static constexpr std::int64_t kCheckedBytes = 8 << 20;

  /// Throws FormatError, or std::system_error where the file cannot be opened or read.
  explicit ModelFile(const std::string& path, Verify verify = Verify::kSmall);
  /// The same of a copy of these bytes.
  static ModelFile from_bytes(std::span<const std::byte> bytes, Verify verify = Verify::kSmall);
  ~ModelFile();
  ModelFile(ModelFile&&) noexcept;
  ModelFile& operator=(ModelFile&&) noexcept;

  int version() const;
  std::string_view kind() const;
  /// What the writer had to say, as JSON: an object.
  std::string_view metadata() const;
  /// In the order of the file. A name with '#' is a part of an array of strings: "x#utf8", "x#offsets".
  std::span<const StoredArray> arrays() const;
  /// Null where there is none of this name.
  const StoredArray* find(std::string_view name) const;
  /// Compares every array with its checksum; FormatError names the first that differs.
  void verify() const;

 private:
  struct State;
  explicit ModelFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace recfuse
