#include "model/id_table.hpp"

#include <cstring>
#include <limits>

namespace recfuse {
namespace {

template <class T>
T value_at(const StoredArray& array, std::int64_t place) {
  T value;  // the caller knows the type and the place
  std::memcpy(&value, array.bytes.data() + static_cast<std::size_t>(place) * sizeof(T), sizeof(T));
  return value;
}

}  // namespace

std::int64_t integer_at(const StoredArray& array, std::int64_t place) {
  switch (array.dtype) {
    case DType::kU8:
      return value_at<std::uint8_t>(array, place);
    case DType::kI8:
      return value_at<std::int8_t>(array, place);
    case DType::kU16:
      return value_at<std::uint16_t>(array, place);
    case DType::kI16:
      return value_at<std::int16_t>(array, place);
    case DType::kU32:
      return value_at<std::uint32_t>(array, place);
    case DType::kI32:
      return value_at<std::int32_t>(array, place);
    case DType::kI64:
      return value_at<std::int64_t>(array, place);
    case DType::kU64: {
      const auto value = value_at<std::uint64_t>(array, place);
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) break;
      return static_cast<std::int64_t>(value);
    }
    default:
      break;
  }
  throw FormatError("must have integers of 63 bits in '" + array.name + "'; got others");
}

IdTable::IdTable(const StoredArray& integers, const StoredArray* order)
    : kind_(IdKind::kInteger), n_(integers.size()), integers_(&integers), order_(order) {}

IdTable::IdTable(IdKind kind, const StoredArray& utf8, const StoredArray& offsets, const StoredArray* order)
    : kind_(kind), n_(offsets.size() - 1), utf8_(&utf8), offsets_(&offsets), order_(order) {}

std::int64_t IdTable::row_at(std::int64_t place) const {
  if (order_ == nullptr) return place;
  const std::int64_t row = integer_at(*order_, place);
  if (row < 0 || row >= n_) throw FormatError("must have rows in '" + order_->name + "'; got " + std::to_string(row));
  return row;
}

template <class Key, class Of>
std::optional<std::int64_t> IdTable::search(const Key& wanted, const Of& key_of) const {
  std::int64_t low = 0, high = n_;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (key_of(row_at(middle)) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == n_) return std::nullopt;
  const std::int64_t row = row_at(low);
  return key_of(row) == wanted ? std::optional(row) : std::nullopt;
}

std::optional<std::int64_t> IdTable::find(std::int64_t id) const {
  if (kind_ == IdKind::kRow) return id >= 0 && id < n_ ? std::optional(id) : std::nullopt;
  if (kind_ != IdKind::kInteger) return std::nullopt;
  return search(id, [&](std::int64_t row) { return integer(row); });
}

std::optional<std::int64_t> IdTable::find(std::string_view id) const {
  if (utf8_ == nullptr) return std::nullopt;
  return search(id, [&](std::int64_t row) { return text(row); });
}

std::string_view IdTable::text(std::int64_t row) const {
  const auto begin = value_at<std::int64_t>(*offsets_, row), end = value_at<std::int64_t>(*offsets_, row + 1);
  if (begin < 0 || end < begin || static_cast<std::uint64_t>(end) > utf8_->bytes.size()) {
    throw FormatError("must have rising offsets in '" + offsets_->name + "'; got others");
  }
  const char* const text = reinterpret_cast<const char*>(utf8_->bytes.data());
  return {text + begin, static_cast<std::size_t>(end - begin)};
}

std::int64_t IdTable::integer(std::int64_t row) const {
  return kind_ == IdKind::kRow ? row : integer_at(*integers_, row);
}

}  // namespace recfuse
