#include "ops/als_solve.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>

#include "isa/dispatch.hpp"
#include "ops/als_block.hpp"
#include "ops/als_cg.hpp"
#include "ops/als_dual.hpp"
#include "ops/als_entries.hpp"
#include "ops/ordered_sum.hpp"

namespace recfuse {
namespace {

// Gathered rows that one pass of the tiles multiplies: 16 KiB stay in L1, and a pass over less pays for its stores.
constexpr std::int64_t kStripFloats = 4096;
constexpr std::int64_t kSmallestStrip = 64;
constexpr std::int64_t kMicroRows = 256;      // added in float32; beyond, in float64
constexpr std::int64_t kHugeChunk = 1 << 14;  // entries of a huge row that one thread takes

class ExactHalfStep {
 public:
  ExactHalfStep(const HalfStepInput& input, AlignedVector<float>& table)
      : params_(input.params),
        mean_(input.mean),
        gram_(input.gram),
        others_(input.others),
        side_(input.side),
        num_threads_(input.num_threads),
        dual_(input, table) {}

  std::int64_t run();

 private:
  /// Scratch of one thread. Vectors have `width` elements, matrices `width` rows.
  struct Worker {
    explicit Worker(const kernels::RowLayout& layout);
    EntryTerms terms;
    AlignedVector<float> rows;
    AlignedVector<float> matrix, inverse;
    AlignedVector<float> x, rhs;
  };

  Worker& worker(int i);
  std::int64_t strip_rows() const { return std::max(kStripFloats / layout_.width, kSmallestStrip); }
  std::size_t matrix_size() const { return static_cast<std::size_t>(layout_.width * layout_.stride); }
  /// Returns how many of the rows, from the first on, are added to the system; the others are subtracted.
  std::int64_t gather(const RowEntries& entries, std::int64_t first, std::int64_t n, Worker& w, float* rows,
                      float* rhs) const;
  void subtract(const float* rows, std::int64_t first, std::int64_t end, Worker& w) const;
  void solve(std::size_t at, std::size_t end, Worker& w);  // order[at], with more to come before `end`
  void solve_short(std::size_t first, std::size_t end, int i);
  void solve_huge(std::int64_t row);
  bool factor_and_solve(std::int64_t row, Worker& w) const;
  void build(const RowEntries& entries, const RowEntries& next, Worker& w) const;  // fetches what `next` begins with
  void build_huge(const RowEntries& entries, Worker& w);
  bool store(std::int64_t row, const Worker& w) const;

  const AlsParams& params_;
  const double mean_;
  const SharedGram& gram_;
  const AlsSide& others_;
  AlsSide& side_;
  const int num_threads_;
  const kernels::KernelTable& kernels_ = kernel_table();
  const kernels::RowLayout layout_ = others_.factors.layout;
  const std::int64_t unknowns_ = unknowns(params_);
  DualRows dual_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<std::int64_t> float64_rows_{0};
};

ExactHalfStep::Worker::Worker(const kernels::RowLayout& layout) {
  for (auto* vector : {&inverse, &x, &rhs}) {
    vector->assign(static_cast<std::size_t>(layout.width), 0.0F);
  }
}

ExactHalfStep::Worker& ExactHalfStep::worker(int i) {
  auto& w = workers_[static_cast<std::size_t>(i)];
  if (!w) w = std::make_unique<Worker>(layout_);
  return *w;
}

std::int64_t ExactHalfStep::gather(const RowEntries& entries, std::int64_t first, std::int64_t n, Worker& w,
                                   float* rows, float* rhs) const {
  w.terms.set(params_, mean_, others_, entries, first, n);
  const std::int32_t* ids = entries.ids + first;
  const std::int64_t n_added = w.terms.take_roots(params_, ids, n);
  const float* scales = params_.objective == AlsObjective::kImplicit ? w.terms.weights.data() : nullptr;
  kernels_.gather_rows(others_.factors.values.data(), layout_, ids, scales, w.terms.targets.data(), n, rows, rhs);
  return n_added;
}

void ExactHalfStep::subtract(const float* rows, std::int64_t first, std::int64_t end, Worker& w) const {
  if (first < end) kernels_.subtract_gram(rows + first * layout_.stride, layout_, end - first, w.matrix.data());
}

bool ExactHalfStep::store(std::int64_t row, const Worker& w) const {
  for (std::int64_t j = 0; j < unknowns_; ++j) {
    if (!std::isfinite(w.x[static_cast<std::size_t>(j)])) return false;
  }
  side_.assign(row, params_, w.x.data());
  return true;
}

void ExactHalfStep::build(const RowEntries& entries, const RowEntries& next, Worker& w) const {
  const std::int64_t strip = strip_rows();
  w.rows.resize(static_cast<std::size_t>(strip * layout_.stride));
  w.matrix.resize(matrix_size());
  std::fill(w.x.begin(), w.x.end(), 0.0F);
  const float* base = gram_.base.data();
  for (std::int64_t first = 0; first < entries.n; first += strip) {
    const std::int64_t n = std::min(strip, entries.n - first);
    const std::int64_t n_added = gather(entries, first, n, w, w.rows.data(), w.x.data());
    const std::int64_t end = first + n;
    const RowEntries& ahead = end < entries.n ? entries : next;
    const std::int64_t behind = end < entries.n ? end : 0;
    kernels_.add_gram(w.rows.data(), layout_, n_added, base, w.matrix.data(),
                      {others_.factors.values.data(), layout_, ahead.ids + behind, std::min(strip, ahead.n - behind)});
    subtract(w.rows.data(), n_added, n, w);
    base = w.matrix.data();
  }
}

void ExactHalfStep::build_huge(const RowEntries& entries, Worker& w) {
  const AlignedVector<float> zeros(matrix_size(), 0.0F);
  w.matrix.resize(matrix_size());
  std::vector<double> sum(gram_.base.begin(), gram_.base.end());
  sum.resize(sum.size() + static_cast<std::size_t>(layout_.width), 0.0);  // the right-hand side behind the matrix
  sum_in_order((entries.n + kHugeChunk - 1) / kHugeChunk, num_threads_, sum,
               [&](std::int64_t chunk, int i, std::span<double> out) {
                 Worker& own = worker(i);
                 own.rows.resize(static_cast<std::size_t>(kMicroRows * layout_.stride));
                 own.matrix.resize(matrix_size());
                 const std::int64_t end = std::min(entries.n, (chunk + 1) * kHugeChunk);
                 for (std::int64_t first = chunk * kHugeChunk; first < end; first += kMicroRows) {
                   const std::int64_t n = std::min(kMicroRows, end - first);
                   std::fill(own.rhs.begin(), own.rhs.end(), 0.0F);
                   const std::int64_t n_added = gather(entries, first, n, own, own.rows.data(), own.rhs.data());
                   kernels_.add_gram(own.rows.data(), layout_, n_added, zeros.data(), own.matrix.data(), {});
                   subtract(own.rows.data(), n_added, n, own);
                   widen_upper(own.matrix.data(), layout_, out.data());
                   for (std::size_t j = 0; j < own.rhs.size(); ++j) out[own.matrix.size() + j] += own.rhs[j];
                 }
               });
  for (std::size_t j = 0; j < w.matrix.size(); ++j) w.matrix[j] = static_cast<float>(sum[j]);
  for (std::size_t j = 0; j < w.x.size(); ++j) w.x[j] = static_cast<float>(sum[w.matrix.size() + j]);
}

bool ExactHalfStep::factor_and_solve(std::int64_t row, Worker& w) const {
  const auto penalty = static_cast<float>(side_.penalty(row));
  const bool subtracted = params_.objective == AlsObjective::kImplicit && params_.base_confidence < 1;
  for (std::int64_t j = 0; j < unknowns_; ++j) {
    const auto at = static_cast<std::size_t>(j * layout_.stride + j);
    w.matrix[at] += penalty;
    if (subtracted && w.matrix[at] < kSmallestRemainder * gram_.base[at]) return false;
  }
  if (!kernels_.factor_spd(w.matrix.data(), layout_, w.inverse.data())) return false;
  kernels_.solve_factored(w.matrix.data(), layout_, w.inverse.data(), w.x.data());
  return store(row, w);
}

void ExactHalfStep::solve(std::size_t at, std::size_t end, Worker& w) {
  const std::int64_t row = side_.order[at];
  if (!params_.double_precision) {
    build(entries_of(side_, row), at + 1 < end ? entries_of(side_, side_.order[at + 1]) : RowEntries{}, w);
    if (factor_and_solve(row, w)) return;
  }
  solve_row_in_float64(params_, mean_, gram_, others_, side_, row);
  float64_rows_.fetch_add(1, std::memory_order_relaxed);
}

void ExactHalfStep::solve_short(std::size_t first, std::size_t end, int i) {
  for (; first < end; first += kernels::kTurnedRows) {
    const unsigned others = dual_.solve(first, std::min<std::size_t>(first + kernels::kTurnedRows, end), i);
    for (std::size_t j = 0; j < kernels::kTurnedRows; ++j) {
      if ((others >> j & 1U) != 0) solve(first + j, first + j + 1, worker(i));
    }
  }
}

/// All threads on one row, a fixed run of its entries at a time.
void ExactHalfStep::solve_huge(std::int64_t row) {
  if (!params_.double_precision) {
    Worker w(layout_);
    build_huge(entries_of(side_, row), w);
    if (factor_and_solve(row, w)) return;
  }
  solve_row_in_float64(params_, mean_, gram_, others_, side_, row);
  float64_rows_.fetch_add(1, std::memory_order_relaxed);
}

std::int64_t ExactHalfStep::run() {
  const std::vector<std::size_t>& chunks = side_.chunks;
  workers_.resize(static_cast<std::size_t>(plan_workers(1 << 30, num_threads_)));
  for (std::size_t i = 0; i < side_.n_huge; ++i) solve_huge(side_.order[i]);
  parallel_for(static_cast<std::int64_t>(chunks.size()) - 1, num_threads_, [&](std::int64_t chunk, int i) {
    Worker& w = worker(i);
    const auto c = static_cast<std::size_t>(chunk);
    const std::size_t first_short = std::clamp(dual_.first(), chunks[c], chunks[c + 1]);
    for (std::size_t at = chunks[c]; at < first_short; ++at) solve(at, first_short, w);
    solve_short(first_short, chunks[c + 1], i);
  });
  return float64_rows_.load();
}

}  // namespace

std::int64_t solve_side(const AlsParams& params, double mean, const SharedGram& gram, const AlsSide& others,
                        AlsSide& side, AlignedVector<float>& scratch, int num_threads) {
  for (std::int64_t row = 0; row < side.interactions.rows; ++row) {
    if (side.interactions.row_size(row) > 0) continue;
    std::fill_n(side.factors.row(row), params.factors, 0.0F);
    if (params.biases) side.biases[static_cast<std::size_t>(row)] = 0.0F;
  }
  const HalfStepInput input{params, mean, gram, others, side, num_threads};
  if (!params.double_precision && params.solver == LinearSolver::kCg) return solve_by_cg(input, scratch);
  if (!params.double_precision && params.solver == LinearSolver::kBlock) return solve_by_blocks(input, scratch);
  return ExactHalfStep(input, scratch).run();
}

}  // namespace recfuse
