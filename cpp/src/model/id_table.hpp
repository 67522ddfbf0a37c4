// Ids by row and rows by id, where they lie in a file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "recfuse/model.hpp"

namespace recfuse {

/// A search in the order of the ids. What places and offsets say is checked when they are looked at (FormatError).
class IdTable {
 public:
  IdTable() = default;
  /// Rows are ids.
  explicit IdTable(std::int64_t n) : n_(n) {}
  /// `order`, the rows in ascending order, may be null where they lie so.
  IdTable(const StoredArray& integers, const StoredArray* order);
  IdTable(IdKind kind, const StoredArray& utf8, const StoredArray& offsets, const StoredArray* order);

  IdKind kind() const { return kind_; }
  std::int64_t size() const { return n_; }
  std::optional<std::int64_t> find(std::int64_t id) const;
  std::optional<std::int64_t> find(std::string_view id) const;
  /// The row must be there.
  std::string_view text(std::int64_t row) const;
  std::int64_t integer(std::int64_t row) const;

 private:
  std::int64_t row_at(std::int64_t place) const;
  template <class Key, class Of>
  std::optional<std::int64_t> search(const Key& wanted, const Of& key_of) const;

  IdKind kind_ = IdKind::kRow;
  std::int64_t n_ = 0;
  const StoredArray* integers_ = nullptr;
  const StoredArray* utf8_ = nullptr;
  const StoredArray* offsets_ = nullptr;
  const StoredArray* order_ = nullptr;
};

/// The number at a place of an array of integers; one beyond 63 bits is a FormatError.
std::int64_t integer_at(const StoredArray& array, std::int64_t place);

}  // namespace recfuse
