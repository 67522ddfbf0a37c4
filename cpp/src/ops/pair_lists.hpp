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
/// few, and soon in the first cache. Of many rows there are ranges of numbers with lists of their own: what is kept for
/// the rows of a range fits into the second cache.
class PairLists {
 public:
  /// `largest` is the largest value times `scale`. Needs fewer than 2^32 entries.
  PairLists(const CsrView& matrix, PairValues values, float scale, float largest, int num_threads);

  std::int64_t n_rows() const { return static_cast<std::int64_t>(order_.size()); }
  /// The row that has this number.
  std::int32_t row(std::int64_t number) const { return order_[static_cast<std::size_t>(number)]; }
  const std::int32_t* rows() const { return order_.data(); }
  kernels::RowEntries entries(std::int64_t number) const;

  /// Frees all but what row() needs.
  void forget_entries();

  std::int64_t n_ranges() const { return (n_rows() + range_size_ - 1) / range_size_; }
  std::int64_t range_size() const { return range_size_; }
  kernels::EntryKind kind() const { return kind_; }
  /// The first word of the lists, whose numbers count from the beginning of their range.
  const void* words() const;
  /// Where in words the lists of a range begin: n columns + 1.
  const std::uint32_t* begins(std::int64_t range) const {
    return begins_.data() + static_cast<std::size_t>(range) * (n_columns() + 1);
  }
  std::size_t n_columns() const { return static_cast<std::size_t>(matrix_.cols); }
  std::int64_t n_entries() const { return matrix_.nnz(); }
  /// Number of the row of an entry, from the beginning of its range, and its value times `scale`; not for real values.
  std::int32_t number_at(std::uint32_t entry) const;
  std::uint32_t value_at(std::uint32_t entry) const;

 private:
  void pack_words(float scale, int num_threads);
  template <class Pack>
  void fill(const Pack& pack, int num_threads);
  template <class Pack>
  void fill_range(std::int64_t range, std::uint32_t position, const Pack& pack, int num_threads);

  const CsrView& matrix_;
  std::int64_t range_size_;
  kernels::EntryKind kind_;
  std::vector<std::int32_t> order_;
  std::vector<std::uint32_t> begins_;  // n columns + 1 for every range
  Room<std::uint32_t> places_;
  Room<std::uint16_t> narrow_;  // the words, by their size
  Room<std::uint32_t> words_;
  Room<std::uint64_t> wide_;
};

}  // namespace recfuse
