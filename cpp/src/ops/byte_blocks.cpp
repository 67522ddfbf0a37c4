#include "ops/byte_blocks.hpp"

#include <algorithm>
#include <numeric>

#include "parallel_for.hpp"

namespace recfuse {
namespace {

using kernels::kBlockIds;

constexpr std::uint32_t kLargestByte = 127;  // as a weight, a byte has a sign
constexpr std::int64_t kColumnRun = 1024;    // columns that a thread takes at a time
// Blocks of a row at one depth, on average, that make up for writing and reading the row's sums there.
constexpr double kLeastVisits = 4;
constexpr std::int64_t kEntryBytes = 8;  // of blocks for an entry of the lists, at most: their memory can be foretold

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::int64_t column_runs(std::int64_t n_columns) { return (n_columns + kColumnRun - 1) / kColumnRun; }

/// How many blocks of the column, from the first, save most.
std::uint32_t blocks_that_pay(const PairLists& lists, std::uint32_t begin, std::uint32_t end, int cost,
                              std::vector<std::int32_t>& counts) {
  if (end - begin <= static_cast<std::uint32_t>(cost)) return 0;
  const std::int32_t depth = lists.number_at(end - 1) / kBlockIds + 1;
  counts.assign(at(depth), 0);
  for (std::uint32_t e = begin; e < end; ++e) {
    if (lists.value_at(e) > kLargestByte) return 0;
    ++counts[at(lists.number_at(e) / kBlockIds)];
  }
  std::int64_t saved = 0, most = 0;
  std::uint32_t best = 0;
  for (std::int32_t block = 0; block < depth; ++block) {
    saved += counts[at(block)] - cost;
    if (saved > most) {
      most = saved;
      best = static_cast<std::uint32_t>(block) + 1;
    }
  }
  return best;
}

}  // namespace

ByteBlocks::ByteBlocks(const PairLists& lists, std::int64_t n_columns, const kernels::KernelTable& kernels,
                       int num_threads)
    : firsts_(at(n_columns) + 1), begins_(lists.begins(0), lists.begins(0) + n_columns + 1) {
  choose(lists, n_columns, kernels.block_cost, num_threads);
  std::partial_sum(firsts_.begin(), firsts_.end(), firsts_.begin());
  bytes_ = Room<std::uint8_t>(at(firsts_.back()) * kBlockIds);
  std::uint8_t slots[kBlockIds];
  for (int id = 0; id < kBlockIds; ++id) slots[id] = static_cast<std::uint8_t>(kernels.block_slot(id));
  parallel_for(column_runs(n_columns), num_threads, [&](std::int64_t run, int) {
    const std::int64_t last = std::min(n_columns, (run + 1) * kColumnRun);
    for (std::int64_t column = run * kColumnRun; column < last; ++column) {
      const std::int32_t limit = static_cast<std::int32_t>(firsts_[at(column) + 1] - firsts_[at(column)]) * kBlockIds;
      std::uint8_t* const bytes = bytes_.data() + at(firsts_[at(column)]) * kBlockIds;
      std::fill_n(bytes, limit, std::uint8_t{0});
      std::uint32_t& e = begins_[at(column)];
      for (; e < lists.begins(0)[column + 1] && lists.number_at(e) < limit; ++e) {
        const std::int32_t number = lists.number_at(e);
        bytes[number - number % kBlockIds + slots[number % kBlockIds]] = static_cast<std::uint8_t>(lists.value_at(e));
      }
    }
  });
}

/// Leaves in firsts_[column + 1] how many blocks a column gets.
void ByteBlocks::choose(const PairLists& lists, std::int64_t n_columns, int cost, int num_threads) {
  const std::int64_t n_depths = (std::min(lists.n_rows(), lists.range_size()) + kBlockIds - 1) / kBlockIds;
  const std::int64_t runs = column_runs(n_columns);
  // visits[d]: how often a block at depth d will be added, by the worker that counted.
  std::vector<std::vector<std::int64_t>> visits(at(plan_workers(runs, num_threads)));
  parallel_for(runs, num_threads, [&](std::int64_t run, int worker) {
    auto& own = visits[at(worker)];
    own.resize(at(n_depths));
    std::vector<std::int32_t> counts;
    const std::int64_t last = std::min(n_columns, (run + 1) * kColumnRun);
    for (std::int64_t column = run * kColumnRun; column < last; ++column) {
      const std::uint32_t begin = lists.begins(0)[column], end = lists.begins(0)[column + 1];
      const std::uint32_t n = blocks_that_pay(lists, begin, end, cost, counts);
      firsts_[at(column) + 1] = n;
      std::int64_t later = 0;
      for (std::int64_t range = 0; range < lists.n_ranges(); ++range) {
        later += lists.begins(range)[column + 1] - lists.begins(range)[column];
      }
      for (std::uint32_t block = 0; block < n; ++block) {
        own[block] += later;
        later -= counts[block];
      }
    }
  });
  while (depth_ < n_depths) {
    std::int64_t sum = 0;
    for (const auto& own : visits) sum += own.empty() ? 0 : own[at(depth_)];
    if (static_cast<double>(sum) < kLeastVisits * static_cast<double>(lists.n_rows() - depth_ * kBlockIds)) break;
    ++depth_;
  }
  depth_ = std::min(depth_, depth_within(kEntryBytes * lists.n_entries() / kBlockIds));
  for (auto& n : firsts_) n = std::min(n, static_cast<std::uint32_t>(depth_));
}

/// The largest depth up to which there are no more than `most` blocks, with firsts_ as choose() counts them.
std::int64_t ByteBlocks::depth_within(std::int64_t most) const {
  std::vector<std::int64_t> at_depth(at(depth_ + 1));  // columns that end there
  std::int64_t columns = 0;
  for (const std::uint32_t n : firsts_) {
    ++at_depth[std::min(at(n), at(depth_))];
    ++columns;
  }
  std::int64_t depth = 0, blocks = 0;
  for (; depth < depth_; ++depth) {
    columns -= at_depth[at(depth)];
    blocks += columns;
    if (blocks > most) break;
  }
  return depth;
}

void BlockSums::collect(std::int64_t first, std::int64_t last) {
  starts_.clear();
  counts_.clear();
  std::int64_t room = 0;
  for (std::int64_t number = first; number < last; ++number) {
    starts_.push_back(room);
    room += lists_.entries(number).n;
  }
  which_.resize(at(room));
  depths_.resize(at(room));
  weights_.resize(at(room));
  for (std::int64_t number = first; number < last; ++number) {
    const kernels::RowEntries row = lists_.entries(number);
    std::int64_t to = starts_[at(number - first)];
    for (std::int64_t j = 0; j < row.n; ++j) {
      which_[at(to)] = blocks_.first(row.columns[j]);
      depths_[at(to)] = blocks_.blocks_of(row.columns[j]);
      // Not a byte where the column has no blocks.
      weights_[at(to)] = static_cast<std::uint8_t>(static_cast<std::uint32_t>(row.values[j] * scale_));
      to += depths_[at(to)] > 0;
    }
    counts_.push_back(to - starts_[at(number - first)]);
  }
}

/// Forgets the columns of a row that have no block at `depth`; returns how many are left.
std::int64_t BlockSums::keep_deeper(std::int64_t row, std::uint32_t depth) {
  const std::int64_t start = starts_[at(row)];
  std::int64_t to = start;
  for (std::int64_t j = start; j < start + counts_[at(row)]; ++j) {
    which_[at(to)] = which_[at(j)];
    weights_[at(to)] = weights_[at(j)];
    depths_[at(to)] = depths_[at(j)];
    to += depths_[at(to)] > depth;
  }
  return counts_[at(row)] = to - start;
}

void BlockSums::compute(std::int64_t first, std::int64_t last) {
  first_ = first;
  // As deep as the last row looks back.
  const std::int64_t depth = std::min(blocks_.depth(), (last + kBlockIds - 2) / kBlockIds);
  stride_ = depth * kBlockIds;
  widths_.assign(at(last - first), 0);
  if (depth == 0) return;
  // Room for the last run at once: growing would hold two copies.
  const std::size_t room = at((last - first) * blocks_.depth() * kBlockIds);
  if (sums_.size() < room) sums_ = AlignedVector<std::uint32_t>(room);
  collect(first, last);
  // All rows at one depth, then all at the next: the blocks of a depth fit into the caches.
  for (std::int64_t d = 0; d < depth; ++d) {
    for (std::int64_t number = std::max(first, d * kBlockIds + 1); number < last; ++number) {
      const std::int64_t row = number - first;
      if (widths_[at(row)] < d * kBlockIds) continue;
      const std::int64_t n = keep_deeper(row, static_cast<std::uint32_t>(d));
      if (n == 0) continue;
      const std::int64_t start = starts_[at(row)];
      kernels_.add_blocks(blocks_.data() + d * kBlockIds, &which_[at(start)], &weights_[at(start)], n,
                          &sums_[at(row * stride_ + d * kBlockIds)]);
      widths_[at(row)] = (d + 1) * kBlockIds;
    }
  }
}

std::int64_t BlockSums::width(std::int64_t number) const {
  return widths_.empty() ? 0 : std::min(widths_[at(number - first_)], number);
}

const std::uint32_t* BlockSums::of(std::int64_t number) const { return &sums_[at((number - first_) * stride_)]; }

}  // namespace recfuse
