#include "ops/als_block.hpp"

#include <algorithm>
#include <atomic>
#include <memory>

#include "isa/dispatch.hpp"
#include "ops/als_entries.hpp"
#include "parallel_for.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kBlock = 64;            // unknowns: its matrix and a strip of its rows fit the first cache
constexpr std::int64_t kStrip = 64;            // entries
constexpr std::int64_t kKeptFloats = 1 << 18;  // 1 MiB of a row's gathered factors: longer rows gather them again
constexpr kernels::RowLayout kLayout{kBlock, kBlock};

class BlockHalfStep {
 public:
  BlockHalfStep(const HalfStepInput& input, AlignedVector<float>& table)
      : input_(input), coordinates_(input.params, input.gram, input.others.factors.layout), table_(table) {
    if (coordinates_.found) copy_others();
  }

  std::int64_t run();

 private:
  /// Scratch of one thread.
  struct Worker {
    explicit Worker(const kernels::RowLayout& layout) : turn(layout), matrix(kBlock * kBlock) {}
    TurnScratch turn;
    EntryTerms terms;
    AlignedVector<float> rows;  // gathered, scaled by the roots of the weights; of all blocks where they are kept
    AlignedVector<float> x, predicted, matrix;
  };

  void copy_others();
  bool move(std::int64_t row, float* x, Worker& w) const;
  const float* gather(const RowEntries& entries, std::int64_t block, std::int64_t first, std::int64_t n, float* sum,
                      Worker& w) const;
  bool kept(const RowEntries& entries) const { return entries.n * n_blocks_ * kBlock <= kKeptFloats; }
  double diagonal(std::int64_t row, std::int64_t unknown) const;

  const HalfStepInput& input_;
  const Coordinates coordinates_;
  const kernels::KernelTable& kernels_ = kernel_table();
  const std::int64_t unknowns_ = unknowns(input_.params);
  const std::int64_t n_blocks_ = (unknowns_ + kBlock - 1) / kBlock;
  AlignedVector<float>& table_;  // the others' factors, block by block: kBlock of all rows, then the next
};

void BlockHalfStep::copy_others() {
  const FactorTable& others = input_.others.factors;
  make_room(table_, others.rows * n_blocks_ * kBlock);
  turn_table(others, coordinates_, input_.num_threads, [&](std::int64_t first, std::int64_t n, const float* rows) {
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t block = 0; block < n_blocks_; ++block) {
        const std::int64_t columns = std::min(kBlock, unknowns_ - block * kBlock);
        float* out = table_.data() + (block * others.rows + first + i) * kBlock;
        std::fill_n(std::copy_n(rows + i * others.layout.stride + block * kBlock, columns, out), kBlock - columns,
                    0.0F);
      }
    }
  });
}

double BlockHalfStep::diagonal(std::int64_t row, std::int64_t unknown) const {
  if (unknown >= unknowns_) return 1;
  const double penalty = input_.side.penalty(row);
  return coordinates_.eigenvalues.empty() ? penalty
                                          : penalty + coordinates_.eigenvalues[static_cast<std::size_t>(unknown)];
}

/// The rows of a block for n entries, gathered now or before; sum (may be null) += what their targets add up to.
const float* BlockHalfStep::gather(const RowEntries& entries, std::int64_t block, std::int64_t first, std::int64_t n,
                                   float* sum, Worker& w) const {
  const bool keep = kept(entries);
  float* rows = w.rows.data() + (keep ? (block * entries.n + first) * kBlock : 0);
  if (keep && sum == nullptr) return rows;
  float ignored[kBlock] = {};
  const float* table = table_.data() + block * input_.others.factors.rows * kBlock;
  kernels_.gather_rows(table, kLayout, entries.ids + first, w.terms.weights.data() + first,
                       w.terms.targets.data() + first, n, rows, sum == nullptr ? ignored : sum);
  return rows;
}

/// With R = the gathered rows, scaled by the roots of the weights' sizes, S their signs and u = R x, a block's gradient
/// is b - R'Su - D x and its matrix D + R'SR; what it moves by changes u.
bool BlockHalfStep::move(std::int64_t row, float* x, Worker& w) const {
  RowEntries entries = entries_of(input_.side, row);
  w.terms.set(input_.params, input_.mean, input_.others, entries, 0, entries.n);
  const std::int64_t n_added = w.terms.take_roots(input_.params, entries.ids, entries.n);
  const std::int64_t held = kept(entries) ? entries.n * n_blocks_ : kStrip;
  w.rows.resize(std::max(w.rows.size(), static_cast<std::size_t>(held * kBlock)));
  w.x.assign(static_cast<std::size_t>(n_blocks_ * kBlock), 0.0F);
  std::copy_n(x, unknowns_, w.x.begin());
  w.predicted.assign(static_cast<std::size_t>(entries.n), 0.0F);

  const auto for_strips_of = [&](std::int64_t begin, std::int64_t end, const auto& body) {
    for (std::int64_t first = begin; first < end; first += kStrip) body(first, std::min(kStrip, end - first));
  };
  const auto for_strips = [&](const auto& body) { for_strips_of(0, entries.n, body); };
  AlignedVector<float> sums(w.x.size(), 0.0F);  // b
  for (std::int64_t block = 0; block < n_blocks_; ++block) {
    for_strips([&](std::int64_t first, std::int64_t n) {
      const float* rows = gather(entries, block, first, n, sums.data() + block * kBlock, w);
      kernels_.add_row_products(rows, kLayout, n, w.x.data() + block * kBlock, w.predicted.data() + first);
    });
  }
  for (std::int64_t block = 0; block < n_blocks_; ++block) {
    float gradient[kBlock], inverse[kBlock], fitted[kBlock] = {}, subtracted[kBlock] = {};
    std::fill(w.matrix.begin(), w.matrix.end(), 0.0F);
    for_strips_of(0, n_added, [&](std::int64_t first, std::int64_t n) {
      const float* rows = gather(entries, block, first, n, nullptr, w);
      kernels_.add_gram(rows, kLayout, n, w.matrix.data(), w.matrix.data(), {});
      kernels_.add_weighted_rows(rows, kLayout, n, w.predicted.data() + first, fitted);
    });
    for_strips_of(n_added, entries.n, [&](std::int64_t first, std::int64_t n) {
      const float* rows = gather(entries, block, first, n, nullptr, w);
      kernels_.subtract_gram(rows, kLayout, n, w.matrix.data());
      kernels_.add_weighted_rows(rows, kLayout, n, w.predicted.data() + first, subtracted);
    });
    for (std::int64_t j = 0; j < kBlock; ++j) {
      const std::int64_t unknown = block * kBlock + j;
      const auto d = static_cast<float>(diagonal(row, unknown));
      const auto at = static_cast<std::size_t>(unknown);
      float& left = w.matrix[static_cast<std::size_t>(j * kBlock + j)];
      left += d;
      if (left < kSmallestRemainder * d) return false;
      gradient[j] = sums[at] - (fitted[j] - subtracted[j]) - d * w.x[at];
    }
    if (!kernels_.factor_spd(w.matrix.data(), kLayout, inverse)) return false;
    kernels_.solve_factored(w.matrix.data(), kLayout, inverse, gradient);
    for (std::int64_t j = 0; j < kBlock; ++j) w.x[static_cast<std::size_t>(block * kBlock + j)] += gradient[j];
    if (block + 1 == n_blocks_) break;
    for_strips([&](std::int64_t first, std::int64_t n) {
      const float* rows = gather(entries, block, first, n, nullptr, w);
      kernels_.add_row_products(rows, kLayout, n, gradient, w.predicted.data() + first);
    });
  }
  std::copy_n(w.x.begin(), unknowns_, x);
  return true;
}

std::int64_t BlockHalfStep::run() {
  const AlsSide& side = input_.side;
  std::vector<std::unique_ptr<Worker>> workers(static_cast<std::size_t>(plan_workers(1 << 30, input_.num_threads)));
  std::atomic<std::int64_t> in_float64{0};
  parallel_for(static_cast<std::int64_t>(side.chunks.size()) - 1, input_.num_threads, [&](std::int64_t chunk, int i) {
    auto& w = workers[static_cast<std::size_t>(i)];
    if (!w) w = std::make_unique<Worker>(coordinates_.layout);
    const std::size_t end = side.chunks[static_cast<std::size_t>(chunk) + 1];
    for (std::size_t at = side.chunks[static_cast<std::size_t>(chunk)]; at < end; at += kernels::kTurnedRows) {
      in_float64 += move_rows(input_, coordinates_, at, std::min<std::size_t>(at + kernels::kTurnedRows, end), w->turn,
                              [&](std::size_t place, float* x) { return move(side.order[place], x, *w); });
    }
  });
  return in_float64.load();
}

}  // namespace

std::int64_t solve_by_blocks(const HalfStepInput& input, AlignedVector<float>& table) {
  return BlockHalfStep(input, table).run();
}

}  // namespace recfuse
