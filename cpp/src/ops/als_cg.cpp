#include "ops/als_cg.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>

#include "isa/dispatch.hpp"
#include "ops/als_coordinates.hpp"
#include "ops/als_entries.hpp"
#include "ops/als_solve.hpp"
#include "ops/ordered_sum.hpp"

namespace recfuse {
namespace {

// So few steps leave more error than rounding the other side's factors to bfloat16 does, and half the bytes are half
// the time of what is bound by memory; who asks for more wants the solution itself.
constexpr std::int64_t kMostRoundedSteps = 4;
constexpr std::int64_t kKeptWords = 1 << 17;  // 512 KiB of a row's gathered factors: longer rows gather in each pass
constexpr std::int64_t kMicroRows = 256;      // added in float32; beyond, in float64
constexpr std::int64_t kHugeChunk = 1 << 14;  // entries of a huge row that one thread takes
constexpr float kSmallestEnergy = 0x1p-50F;   // of the first: beyond, steps follow the rounding of float32

std::int64_t packed_width(const kernels::RowLayout& layout) { return (layout.width + 31) / 32 * 32; }

class CgHalfStep {
 public:
  CgHalfStep(const AlsParams& params, double mean, const SharedGram& gram, const AlsSide& others, AlsSide& side,
             AlignedVector<float>& table, int num_threads)
      : params_(params),
        mean_(mean),
        gram_(gram),
        others_(others),
        side_(side),
        num_threads_(num_threads),
        coordinates_(params, gram, others.factors.layout),
        table_(table) {
    if (coordinates_.found) turn_others();
  }

  std::int64_t run();

 private:
  /// Scratch of one thread. Vectors have packed_width_ elements.
  struct Worker {
    Worker(const kernels::RowLayout& layout, std::int64_t width);
    EntryTerms terms;
    AlignedVector<float> rows;
    AlignedVector<float> start, turned;  // kTurnedRows rows
    AlignedVector<float> x, residual, direction, product, preconditioned, diagonal, inverse;
  };

  Worker& worker(int i);
  kernels::PassSource source(const std::int32_t* ids) const {
    return {table_.data(), ids, packed_width_, words_, rounded_};
  }
  void turn_others();
  void load_starts(std::size_t first, std::size_t end, Worker& w) const;
  void solve_rows(std::size_t first, std::size_t end, Worker& w);
  bool solve(std::int64_t row, Worker& w) const;
  bool solve_huge(std::int64_t row, Worker& w);
  void set_diagonal(std::int64_t row, Worker& w) const;
  template <class Pass>
  bool conjugate_gradients(std::int64_t row, Worker& w, const Pass& pass) const;
  void store(std::size_t first, std::size_t end, const std::vector<char>& solved, Worker& w);

  const AlsParams& params_;
  const double mean_;
  const SharedGram& gram_;
  const AlsSide& others_;
  AlsSide& side_;
  const int num_threads_;
  const Coordinates coordinates_;
  const kernels::KernelTable& kernels_ = kernel_table();
  const kernels::RowLayout layout_ = others_.factors.layout;
  const std::int64_t unknowns_ = unknowns(params_);
  const bool rounded_ = coordinates_.found && params_.cg_steps <= kMostRoundedSteps && side_.interactions.nnz() > 0 &&
                        rounding_is_harmless(params_, mean_, coordinates_, others_, side_);
  const std::int64_t packed_width_ = packed_width(layout_);
  const std::int64_t words_ = rounded_ ? packed_width_ / 2 : packed_width_;
  AlignedVector<float>& table_;  // the others' factors as a pass reads them
  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<std::int64_t> float64_rows_{0};
};

CgHalfStep::Worker::Worker(const kernels::RowLayout& layout, std::int64_t width) {
  for (auto* block : {&start, &turned}) {
    block->assign(static_cast<std::size_t>(kernels::kTurnedRows * layout.stride), 0.0F);
  }
  for (auto* vector : {&x, &residual, &direction, &product, &preconditioned, &diagonal, &inverse}) {
    vector->assign(static_cast<std::size_t>(width), 0.0F);
  }
}

CgHalfStep::Worker& CgHalfStep::worker(int i) {
  auto& w = workers_[static_cast<std::size_t>(i)];
  if (!w) w = std::make_unique<Worker>(layout_, packed_width_);
  return *w;
}

void CgHalfStep::turn_others() {
  constexpr std::int64_t kChunk = 512;  // rows
  const FactorTable& from = others_.factors;
  table_.resize(std::max(table_.size(), static_cast<std::size_t>(from.rows * words_)));
  parallel_for((from.rows + kChunk - 1) / kChunk, num_threads_, [&](std::int64_t chunk, int) {
    AlignedVector<float> rows(static_cast<std::size_t>(kernels::kTurnedRows * layout_.stride), 0.0F), turned = rows;
    const std::int64_t end = std::min(from.rows, (chunk + 1) * kChunk);
    for (std::int64_t i = chunk * kChunk; i < end; i += kernels::kTurnedRows) {
      const std::int64_t n = std::min<std::int64_t>(kernels::kTurnedRows, end - i);
      const float* ready = from.row(i);
      if (!coordinates_.eigenvalues.empty()) {
        std::copy_n(from.row(i), n * layout_.stride, rows.data());
        coordinates_.turn(rows.data(), turned.data());
        ready = turned.data();
      }
      float* out = table_.data() + i * words_;
      if (rounded_) {
        kernels_.round_rows(ready, layout_.stride, unknowns_, n, packed_width_, reinterpret_cast<std::uint32_t*>(out));
        continue;
      }
      for (std::int64_t r = 0; r < n; ++r) {
        std::fill_n(std::copy_n(ready + r * layout_.stride, layout_.width, out + r * words_), words_ - layout_.width,
                    0.0F);
      }
    }
  });
}

/// w.turned: where the rows order[first .. end) start, in the coordinates of the systems.
void CgHalfStep::load_starts(std::size_t first, std::size_t end, Worker& w) const {
  for (std::size_t at = first; at < end; ++at) {
    float* start = w.start.data() + static_cast<std::int64_t>(at - first) * layout_.stride;
    side_.copy_unknowns(side_.order[at], params_, start);
  }
  coordinates_.turn(w.start.data(), w.turned.data());
}

void CgHalfStep::store(std::size_t first, std::size_t end, const std::vector<char>& solved, Worker& w) {
  coordinates_.turn_back(w.turned.data(), w.start.data());
  for (std::size_t at = first; at < end; ++at) {
    const std::int64_t row = side_.order[at];
    const float* x = w.start.data() + static_cast<std::int64_t>(at - first) * layout_.stride;
    if (solved[at - first] != 0 && std::all_of(x, x + unknowns_, [](float value) { return std::isfinite(value); })) {
      side_.assign(row, params_, x);
      continue;
    }
    solve_row_in_float64(params_, mean_, gram_, others_, side_, row);
    float64_rows_.fetch_add(1, std::memory_order_relaxed);
  }
}

void CgHalfStep::set_diagonal(std::int64_t row, Worker& w) const {
  const double penalty = side_.penalty(row);
  const auto n = static_cast<double>(side_.interactions.row_size(row));
  for (std::int64_t j = 0; j < unknowns_; ++j) {
    const auto at = static_cast<std::size_t>(j);
    double diagonal = penalty, near = penalty;
    if (!coordinates_.eigenvalues.empty()) {
      diagonal += coordinates_.eigenvalues[at];
      near = std::max(diagonal, coordinates_.least);
    } else if (!gram_.squares.empty()) {
      near += n * static_cast<double>(gram_.squares[at]);
    }
    w.diagonal[at] = static_cast<float>(diagonal);
    w.inverse[at] = near > 0 ? static_cast<float>(1 / near) : 1.0F;
  }
}

/// Solves from w.x on. pass(true, x, y): y += the gradient of the entries at x; pass(false, p, y): their product with
/// p.
template <class Pass>
bool CgHalfStep::conjugate_gradients(std::int64_t row, Worker& w, const Pass& pass) const {
  const std::int64_t width = packed_width_;
  const auto dot = [&](const auto& a, const auto& b) { return kernels_.dot_product(a.data(), b.data(), width); };
  set_diagonal(row, w);
  std::fill(w.residual.begin(), w.residual.end(), 0.0F);
  kernels_.multiply_elements(w.diagonal.data(), w.x.data(), width, w.product.data());
  kernels_.add_scaled(-1.0F, w.product.data(), width, w.residual.data());
  pass(true, w.x.data(), w.residual.data());
  kernels_.multiply_elements(w.inverse.data(), w.residual.data(), width, w.direction.data());
  float energy = dot(w.residual, w.direction);
  const float least = kSmallestEnergy * energy;
  for (std::int64_t step = 0; step < params_.cg_steps && energy > least; ++step) {
    kernels_.multiply_elements(w.diagonal.data(), w.direction.data(), width, w.product.data());
    pass(false, w.direction.data(), w.product.data());
    const float curvature = dot(w.direction, w.product);
    if (!(curvature > 0)) break;
    const float length = energy / curvature;
    kernels_.add_scaled(length, w.direction.data(), width, w.x.data());
    if (step + 1 == params_.cg_steps) break;
    kernels_.add_scaled(-length, w.product.data(), width, w.residual.data());
    kernels_.multiply_elements(w.inverse.data(), w.residual.data(), width, w.preconditioned.data());
    const float next = dot(w.residual, w.preconditioned);
    kernels_.add_scaled(next / energy, w.direction.data(), width, w.preconditioned.data());
    std::swap(w.direction, w.preconditioned);
    energy = next;
  }
  return std::isfinite(energy);
}

bool all_zero(const AlignedVector<float>& x, std::int64_t n) {
  return std::all_of(x.begin(), x.begin() + n, [](float value) { return value == 0; });
}

bool CgHalfStep::solve(std::int64_t row, Worker& w) const {
  const RowEntries entries = entries_of(side_, row);
  w.terms.set(params_, mean_, others_, entries, 0, entries.n);
  if (all_zero(w.terms.targets, entries.n)) {
    std::fill(w.x.begin(), w.x.end(), 0.0F);  // nothing but dislikes: exactly 0, as Cholesky finds
    return true;
  }
  const bool kept = entries.n * words_ <= kKeptWords;
  if (kept) w.rows.resize(std::max(w.rows.size(), static_cast<std::size_t>(entries.n * words_)));
  return conjugate_gradients(row, w, [&](bool gradient, const float* x, float* y) {
    kernels::PassSource from = source(entries.ids);
    if (!gradient && kept) {
      from.table = w.rows.data();
      from.ids = nullptr;
    }
    kernels_.normal_pass(from, entries.n, gradient ? w.terms.targets.data() : nullptr, w.terms.weights.data(), x,
                         kept ? w.rows.data() : nullptr, y);
  });
}

/// All threads on one row, a fixed run of its entries at a time.
bool CgHalfStep::solve_huge(std::int64_t row, Worker& w) {
  const RowEntries entries = entries_of(side_, row);
  std::atomic<bool> any_target{false};
  const bool finite = conjugate_gradients(row, w, [&](bool gradient, const float* x, float* y) {
    std::vector<double> sum(static_cast<std::size_t>(packed_width_), 0.0);
    sum_in_order((entries.n + kHugeChunk - 1) / kHugeChunk, num_threads_, sum,
                 [&](std::int64_t chunk, int i, std::span<double> part) {
                   Worker& own = worker(i);
                   const std::int64_t end = std::min(entries.n, (chunk + 1) * kHugeChunk);
                   for (std::int64_t first = chunk * kHugeChunk; first < end; first += kMicroRows) {
                     const std::int64_t n = std::min(kMicroRows, end - first);
                     own.terms.set(params_, mean_, others_, entries, first, n);
                     if (gradient && !all_zero(own.terms.targets, n)) any_target = true;
                     std::fill(own.product.begin(), own.product.end(), 0.0F);
                     kernels_.normal_pass(source(entries.ids + first), n, gradient ? own.terms.targets.data() : nullptr,
                                          own.terms.weights.data(), x, nullptr, own.product.data());
                     for (std::size_t j = 0; j < part.size(); ++j) part[j] += own.product[j];
                   }
                 });
    for (std::size_t j = 0; j < sum.size(); ++j) y[j] += static_cast<float>(sum[j]);
  });
  if (!any_target) std::fill(w.x.begin(), w.x.end(), 0.0F);
  return finite;
}

void CgHalfStep::solve_rows(std::size_t first, std::size_t end, Worker& w) {
  std::vector<char> solved(end - first, 0);
  load_starts(first, end, w);
  for (std::size_t at = first; coordinates_.found && at < end; ++at) {
    float* x = w.turned.data() + static_cast<std::int64_t>(at - first) * layout_.stride;
    std::copy_n(x, layout_.width, w.x.begin());
    solved[at - first] = (at < side_.n_huge ? solve_huge(side_.order[at], w) : solve(side_.order[at], w)) ? 1 : 0;
    std::copy_n(w.x.begin(), layout_.width, x);
  }
  store(first, end, solved, w);
}

std::int64_t CgHalfStep::run() {
  workers_.resize(static_cast<std::size_t>(plan_workers(1 << 30, num_threads_)));
  if (side_.n_huge > 0) {
    Worker w(layout_, packed_width_);
    for (std::size_t at = 0; at < side_.n_huge; ++at) solve_rows(at, at + 1, w);
  }
  parallel_for(static_cast<std::int64_t>(side_.chunks.size()) - 1, num_threads_, [&](std::int64_t chunk, int i) {
    Worker& w = worker(i);
    const std::size_t end = side_.chunks[static_cast<std::size_t>(chunk) + 1];
    for (std::size_t at = side_.chunks[static_cast<std::size_t>(chunk)]; at < end; at += kernels::kTurnedRows) {
      solve_rows(at, std::min<std::size_t>(at + kernels::kTurnedRows, end), w);
    }
  });
  return float64_rows_.load();
}

}  // namespace

std::int64_t solve_by_cg(const AlsParams& params, double mean, const SharedGram& gram, const AlsSide& others,
                         AlsSide& side, AlignedVector<float>& table, int num_threads) {
  return CgHalfStep(params, mean, gram, others, side, table, num_threads).run();
}

}  // namespace recfuse
