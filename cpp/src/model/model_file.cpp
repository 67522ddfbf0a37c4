#include "recfuse/model_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "model/json.hpp"
#include "model/sha256.hpp"
#include "model/stored_header.hpp"

namespace recfuse {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays of model files are used where they lie");

constexpr std::align_val_t kAlignment{64};

/// Memory that holds a file: mapped, or a copy.
class Bytes {
 public:
  explicit Bytes(std::span<const std::byte> bytes) : size_(bytes.size()) {
    data_ = static_cast<std::byte*>(::operator new(std::max<std::size_t>(size_, 1), kAlignment));
    std::copy(bytes.begin(), bytes.end(), data_);
  }

  explicit Bytes(const std::string& path) : mapped_(true) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) throw std::system_error(errno, std::generic_category(), path);
    struct stat status{};
    int error = ::fstat(file, &status) == 0 ? 0 : errno;
    if (error == 0 && S_ISDIR(status.st_mode)) error = EISDIR;
    size_ = error == 0 ? static_cast<std::size_t>(status.st_size) : 0;
    void* data = nullptr;
    if (error == 0 && size_ > 0) {  // an empty file cannot be mapped
      data = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
      if (data == MAP_FAILED) error = errno;
    }
    ::close(file);
    if (error != 0) throw std::system_error(error, std::generic_category(), path);
    data_ = static_cast<std::byte*>(data);
  }

  ~Bytes() {
    if (!mapped_) {
      ::operator delete(data_, kAlignment);
    } else if (size_ > 0) {
      ::munmap(data_, size_);
    }
  }

  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  std::span<const std::byte> all() const { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  bool mapped_ = false;
};

template <class T>
constexpr DType kDTypeOf = DType::kU8;
template <>
constexpr DType kDTypeOf<std::int8_t> = DType::kI8;
template <>
constexpr DType kDTypeOf<std::uint16_t> = DType::kU16;
template <>
constexpr DType kDTypeOf<std::int16_t> = DType::kI16;
template <>
constexpr DType kDTypeOf<std::uint32_t> = DType::kU32;
template <>
constexpr DType kDTypeOf<std::int32_t> = DType::kI32;
template <>
constexpr DType kDTypeOf<float> = DType::kF32;
template <>
constexpr DType kDTypeOf<std::uint64_t> = DType::kU64;
template <>
constexpr DType kDTypeOf<std::int64_t> = DType::kI64;
template <>
constexpr DType kDTypeOf<double> = DType::kF64;

}  // namespace

template <class T>
std::span<const T> StoredArray::as() const {
  if (dtype != kDTypeOf<T>) {
    throw FormatError("must have " + std::string(name_of(kDTypeOf<T>)) + " in '" + name + "'; got " +
                      std::string(name_of(dtype)));
  }
  return {reinterpret_cast<const T*>(bytes.data()), static_cast<std::size_t>(size())};
}
template std::span<const std::uint8_t> StoredArray::as() const;
template std::span<const std::int8_t> StoredArray::as() const;
template std::span<const std::uint16_t> StoredArray::as() const;
template std::span<const std::int16_t> StoredArray::as() const;
template std::span<const std::uint32_t> StoredArray::as() const;
template std::span<const std::int32_t> StoredArray::as() const;
template std::span<const float> StoredArray::as() const;
template std::span<const std::uint64_t> StoredArray::as() const;
template std::span<const std::int64_t> StoredArray::as() const;
template std::span<const double> StoredArray::as() const;

struct ModelFile::State {
  Bytes bytes;
  StoredHeader header;
  std::unordered_map<std::string_view, const StoredArray*> by_name;

  template <class Source>
  State(const Source& source, Verify verify_what) : bytes(source), header(parse_header(bytes.all())) {
    if (!parse_json(header.metadata).is(Json::Kind::kObject)) throw FormatError("must have a JSON object as metadata");
    for (const StoredArray& array : header.arrays) by_name.emplace(array.name, &array);
    const bool small = bytes.all().size() <= static_cast<std::size_t>(kCheckedBytes);
    if (verify_what == Verify::kAll || (verify_what == Verify::kSmall && small)) verify();
  }

  void verify() const {
    if (header.version == 1 && sha256_hex(header.payload) != header.checksum) {
      throw FormatError("must have the arrays that were written; got another checksum");
    }
    for (std::size_t i = 0; i < header.checksums.size(); ++i) {
      if (sha256_hex(header.arrays[i].bytes) == header.checksums[i]) continue;
      throw FormatError("must have the arrays that were written; got another checksum of '" + header.arrays[i].name +
                        "'");
    }
  }
};

namespace {

/// FormatErrors say of which file they speak.
template <class F>
auto with_path(const std::string& path, const F& f) {
  try {
    return f();
  } catch (const FormatError& error) {
    throw FormatError("read: " + path + " " + error.what());
  }
}

}  // namespace

ModelFile::ModelFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
ModelFile::ModelFile(const std::string& path, Verify verify)
    : state_(with_path(path, [&] { return std::make_unique<State>(path, verify); })) {}
ModelFile::~ModelFile() = default;
ModelFile::ModelFile(ModelFile&&) noexcept = default;
ModelFile& ModelFile::operator=(ModelFile&&) noexcept = default;

ModelFile ModelFile::from_bytes(std::span<const std::byte> bytes, Verify verify) {
  return with_path("memory", [&] { return ModelFile(std::make_unique<State>(bytes, verify)); });
}

int ModelFile::version() const { return state_->header.version; }
std::string_view ModelFile::kind() const { return state_->header.kind; }
std::string_view ModelFile::metadata() const { return state_->header.metadata; }
std::span<const StoredArray> ModelFile::arrays() const { return state_->header.arrays; }
void ModelFile::verify() const { state_->verify(); }

const StoredArray* ModelFile::find(std::string_view name) const {
  const auto found = state_->by_name.find(name);
  return found == state_->by_name.end() ? nullptr : found->second;
}

}  // namespace recfuse
