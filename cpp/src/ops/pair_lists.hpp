// A sparse matrix prepared for the products of every pair of its rows, each pair once.
#pragma once

#include <cstdint>
#include <vector>

#include "aligned.hpp"
#include "kernels/table.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

/// What the words of the lists hold besides the number of a row.
enum class PairValues { kNone, kWhole, kReal };

/// The transpose of a matrix whose rows are numbered by size, the largest first. Every list ascends, so the rows that
/// come before a given one are the beginning of the list, and the sums that they touch are those of the largest rows:
/// few, and soon in the first cache.
class PairLists {
 public:
  /// `largest` is the largest value times `scale`. Needs fewer than 2^32 entries.
  PairLists(const CsrView& matrix, PairValues values, float scale, float largest, int num_threads);

  std::int64_t n_rows() const { return static_cast<std::int64_t>(order_.size()); }
  /// The row that has this number.
  std::int32_t row(std::int64_t number) const { return order_[static_cast<std::size_t>(number)]; }
  kernels::RowEntries entries(std::int64_t number) const;

  kernels::EntryKind kind() const { return kind_; }
  /// The first word of the lists, and where in words each of them begins.
  const void* words() const;
  const std::vector<std::uint32_t>& begins() const { return begins_; }
  /// Number of the row of an entry, and its value times `scale`; not for real values.
  std::int32_t number_at(std::uint32_t entry) const;
  std::uint32_t value_at(std::uint32_t entry) const;

 private:
  void pack_words(float scale, int num_threads);
  template <class Pack>
  void fill(const Pack& pack, int num_threads);

  const CsrView& matrix_;
  kernels::EntryKind kind_;
  std::vector<std::int32_t> order_;
  std::vector<std::uint32_t> begins_;  // n columns + 1
  Room<std::uint32_t> places_;
  Room<std::uint16_t> narrow_;  // the words, by their size
  Room<std::uint32_t> words_;
  Room<std::uint64_t> wide_;
};

}  // namespace recfuse
