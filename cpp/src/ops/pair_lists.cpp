#include "ops/pair_lists.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "parallel_for.hpp"

namespace recfuse {
namespace {

using kernels::EntryKind;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

constexpr std::int64_t kFewRows = 1 << 16;      // need no ranges
constexpr std::int64_t kRangeSize = 1 << 14;    // the least, and what its multiples are
constexpr std::int64_t kLeastRangeEntries = 4;  // of a column in a range, on average: every list has its costs

std::int64_t range_size_for(const CsrView& matrix) {
  if (matrix.rows <= kFewRows) return std::max<std::int64_t>(matrix.rows, 1);
  const std::int64_t most = std::max<std::int64_t>(1, matrix.nnz() / (kLeastRangeEntries * (matrix.cols + 1)));
  const std::int64_t least = (matrix.rows + most - 1) / most;
  return (least + kRangeSize - 1) / kRangeSize * kRangeSize;
}

EntryKind kind_for(std::int64_t n_numbers, PairValues values, float largest) {
  if (values == PairValues::kReal) return EntryKind::kId32Real;
  if (values == PairValues::kNone) return n_numbers <= 1 << 16 ? EntryKind::kId16 : EntryKind::kId32;
  if (n_numbers <= 1 << 16 && largest < 0x1p16F) return EntryKind::kId16Value16;
  return n_numbers <= 1 << 24 && largest < 0x1p8F ? EntryKind::kId24Value8 : EntryKind::kId32Value32;
}

}  // namespace

PairLists::PairLists(const CsrView& matrix, PairValues values, float scale, float largest, int num_threads)
    : matrix_(matrix),
      range_size_(range_size_for(matrix)),
      kind_(kind_for(range_size_, values, largest)),
      order_(at(matrix.rows)),
      begins_(at(std::max<std::int64_t>(n_ranges(), 1)) * (n_columns() + 1)),
      places_(at(matrix.nnz())) {
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(),
                   [&](std::int32_t a, std::int32_t b) { return matrix.row_size(a) > matrix.row_size(b); });
  pack_words(scale, num_threads);
}

void PairLists::pack_words(float scale, int num_threads) {
  const auto nnz = at(matrix_.nnz());
  const auto whole = [scale](float value) { return static_cast<std::uint32_t>(value * scale); };
  switch (kind_) {
    case EntryKind::kId16:
      narrow_ = Room<std::uint16_t>(nnz);
      return fill(
          [this](std::uint32_t to, std::int64_t number, float) { narrow_[to] = static_cast<std::uint16_t>(number); },
          num_threads);
    case EntryKind::kId32:
      words_ = Room<std::uint32_t>(nnz);
      return fill(
          [this](std::uint32_t to, std::int64_t number, float) { words_[to] = static_cast<std::uint32_t>(number); },
          num_threads);
    case EntryKind::kId16Value16:
    case EntryKind::kId24Value8:
      words_ = Room<std::uint32_t>(nnz);
      return fill([this, whole, shift = kind_ == EntryKind::kId16Value16 ? 16 : 24](
                      std::uint32_t to, std::int64_t number,
                      float value) { words_[to] = static_cast<std::uint32_t>(number) | whole(value) << shift; },
                  num_threads);
    default:
      wide_ = Room<std::uint64_t>(nnz);
      return fill(
          [this, whole, real = kind_ == EntryKind::kId32Real](std::uint32_t to, std::int64_t number, float value) {
            const std::uint32_t bits = real ? std::bit_cast<std::uint32_t>(value) : whole(value);
            wide_[to] = static_cast<std::uint64_t>(number) | static_cast<std::uint64_t>(bits) << 32;
          },
          num_threads);
  }
}

template <class Pack>
void PairLists::fill(const Pack& pack, int num_threads) {
  std::uint32_t position = 0;
  for (std::int64_t range = 0; range < n_ranges(); ++range) {
    fill_range(range, position, pack, num_threads);
    position = begins(range)[n_columns()];
  }
}

/// Parts of the rows, in the order of their numbers, are counted and then filled in by different threads.
template <class Pack>
void PairLists::fill_range(std::int64_t range, std::uint32_t position, const Pack& pack, int num_threads) {
  const std::int64_t first_row = range * range_size_, last_row = std::min(n_rows(), first_row + range_size_);
  std::int64_t total = 0;
  for (std::int64_t number = first_row; number < last_row; ++number) total += matrix_.row_size(row(number));
  const auto n_parts = static_cast<std::size_t>(std::clamp<std::int64_t>(
      total / std::max<std::int64_t>(matrix_.cols, 1), 1, plan_workers(last_row - first_row, num_threads)));
  std::vector<std::int64_t> bounds{first_row};
  std::int64_t entries = 0;
  for (std::int64_t number = first_row; number < last_row; ++number) {
    if (entries * static_cast<std::int64_t>(n_parts) >= total * static_cast<std::int64_t>(bounds.size()) &&
        bounds.size() < n_parts) {
      bounds.push_back(number);
    }
    entries += matrix_.row_size(row(number));
  }
  bounds.resize(n_parts, last_row);
  bounds.push_back(last_row);

  const std::int64_t first_entry = matrix_.indptr[0];
  std::vector<std::vector<std::uint32_t>> next(n_parts);
  parallel_for(static_cast<std::int64_t>(n_parts), num_threads, [&](std::int64_t part, int) {
    auto& counts = next[at(part)];
    counts.assign(n_columns(), 0);
    for (std::int64_t number = bounds[at(part)]; number < bounds[at(part) + 1]; ++number) {
      const std::int64_t r = row(number);
      for (std::int64_t e = matrix_.indptr[r]; e < matrix_.indptr[r + 1]; ++e) ++counts[at(matrix_.indices[e])];
    }
  });
  std::uint32_t* const own = begins_.data() + at(range) * (n_columns() + 1);
  for (std::size_t column = 0; column < n_columns(); ++column) {
    own[column] = position;
    for (auto& counts : next) position += std::exchange(counts[column], position);
  }
  own[n_columns()] = position;
  parallel_for(static_cast<std::int64_t>(n_parts), num_threads, [&](std::int64_t part, int) {
    auto& free = next[at(part)];
    for (std::int64_t number = bounds[at(part)]; number < bounds[at(part) + 1]; ++number) {
      const std::int64_t r = row(number);
      for (std::int64_t e = matrix_.indptr[r]; e < matrix_.indptr[r + 1]; ++e) {
        const std::uint32_t to = free[at(matrix_.indices[e])]++;
        places_[at(e - first_entry)] = to;
        pack(to, number - first_row, matrix_.values[e]);
      }
    }
  });
}

kernels::RowEntries PairLists::entries(std::int64_t number) const {
  const std::int64_t r = row(number);
  return {matrix_.row_indices(r), matrix_.row_values(r), places_.data() + (matrix_.indptr[r] - matrix_.indptr[0]),
          matrix_.row_size(r)};
}

void PairLists::forget_entries() {
  begins_ = std::vector<std::uint32_t>();  // braces alone would keep the room
  places_ = {};
  narrow_ = {};
  words_ = {};
  wide_ = {};
}

const void* PairLists::words() const {
  if (narrow_.data() != nullptr) return narrow_.data();
  return words_.data() != nullptr ? static_cast<const void*>(words_.data()) : wide_.data();
}

std::int32_t PairLists::number_at(std::uint32_t entry) const {
  switch (kind_) {
    case EntryKind::kId16:
      return narrow_[entry];
    case EntryKind::kId16Value16:
      return static_cast<std::int32_t>(words_[entry] & 0xFFFF);
    case EntryKind::kId24Value8:
      return static_cast<std::int32_t>(words_[entry] & 0xFFFFFF);
    case EntryKind::kId32:
      return static_cast<std::int32_t>(words_[entry]);
    default:
      return static_cast<std::int32_t>(wide_[entry]);
  }
}

std::uint32_t PairLists::value_at(std::uint32_t entry) const {
  switch (kind_) {
    case EntryKind::kId16Value16:
      return words_[entry] >> 16;
    case EntryKind::kId24Value8:
      return words_[entry] >> 24;
    case EntryKind::kId32Value32:
      return static_cast<std::uint32_t>(wide_[entry] >> 32);
    default:
      return 1;
  }
}

}  // namespace recfuse
