// The columns that many rows have, as bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/table.hpp"
#include "ops/pair_lists.hpp"

namespace recfuse {

/// For busy columns, the first rows as blocks of kBlockIds bytes: adding a block costs as much as adding a few entries
/// one by one, so a column is kept in blocks as far as it pays. The largest rows come first, so it pays there: within
/// the first range of the lists.
class ByteBlocks {
 public:
  ByteBlocks(const PairLists& lists, std::int64_t n_columns, const kernels::KernelTable& kernels, int num_threads);

  /// Blocks of the column that has most of them.
  std::int64_t depth() const { return depth_; }
  /// How many blocks a column has; they lie behind each other from block first(column) on.
  std::uint32_t blocks_of(std::int32_t column) const {
    return firsts_[static_cast<std::size_t>(column) + 1] - firsts_[static_cast<std::size_t>(column)];
  }
  std::uint32_t first(std::int32_t column) const { return firsts_[static_cast<std::size_t>(column)]; }
  const std::uint8_t* data() const { return bytes_.data(); }
  /// Where the entries of a column's list in the first range begin that are not in blocks.
  const std::vector<std::uint32_t>& begins() const { return begins_; }

 private:
  void choose(const PairLists& lists, std::int64_t n_columns, int cost, int num_threads);
  std::int64_t depth_within(std::int64_t most) const;

  std::int64_t depth_ = 0;
  std::vector<std::uint32_t> firsts_;
  std::vector<std::uint32_t> begins_;
  Room<std::uint8_t> bytes_;
};

/// What the blocks add to a run of rows, for one thread.
class BlockSums {
 public:
  BlockSums(const PairLists& lists, const ByteBlocks& blocks, const kernels::KernelTable& kernels, float scale)
      : lists_(lists), blocks_(blocks), kernels_(kernels), scale_(scale) {}

  void compute(std::int64_t first, std::int64_t last);
  /// Ids below this have their sums in of(number), or 0: the row has none of the busy columns.
  std::int64_t width(std::int64_t number) const;
  const std::uint32_t* of(std::int64_t number) const;

 private:
  void collect(std::int64_t first, std::int64_t last);
  std::int64_t keep_deeper(std::int64_t row, std::uint32_t depth);

  const PairLists& lists_;
  const ByteBlocks& blocks_;
  const kernels::KernelTable& kernels_;
  float scale_;
  std::int64_t first_ = 0;
  std::int64_t stride_ = 0;
  AlignedVector<std::uint32_t> sums_;
  // The busy columns of row r, in the slots from starts_[r] on.
  std::vector<std::int64_t> starts_, counts_, widths_;
  std::vector<std::uint32_t> which_, depths_;
  std::vector<std::uint8_t> weights_;
};

}  // namespace recfuse
