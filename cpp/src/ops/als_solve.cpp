#include "ops/als_solve.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>

#include "isa/dispatch.hpp"
#include "ops/ordered_sum.hpp"

namespace recfuse {
namespace {

// Gathered rows that one pass of the tiles multiplies: 16 KiB stay in L1, and a pass over less pays for its stores.
constexpr std::int64_t kStripFloats = 4096;
constexpr std::int64_t kSmallestStrip = 64;
constexpr std::int64_t kMicroRows = 256;      // added in float32; beyond, in float64
constexpr std::int64_t kHugeChunk = 1 << 14;  // entries of a huge row that one thread takes

class HalfStep {
 public:
  HalfStep(const AlsParams& params, double mean, const SharedGram& gram, const AlsSide& others, AlsSide& side,
           int num_threads)
      : params_(params), mean_(mean), gram_(gram), others_(others), side_(side), num_threads_(num_threads) {}

  std::int64_t run();

 private:
  /// Scratch of one thread. Vectors have `width` elements, matrices `width` rows.
  struct Worker {
    explicit Worker(const kernels::RowLayout& layout);
    AlignedVector<float> rows, scales, targets;
    AlignedVector<float> matrix, inverse;
    AlignedVector<float> x, rhs, residual, direction, product, preconditioned;
  };

  RowEntries entries(std::int64_t row) const {
    const CsrView& csr = side_.interactions;
    return {csr.row_indices(row), csr.row_values(row), csr.row_size(row)};
  }
  Worker& worker(int i);
  std::int64_t strip_rows() const { return std::max(kStripFloats / layout_.width, kSmallestStrip); }
  std::size_t matrix_size() const { return static_cast<std::size_t>(layout_.width * layout_.stride); }
  void gather(const RowEntries& entries, std::int64_t first, std::int64_t n, Worker& w, float* rows, float* rhs) const;
  void solve(std::int64_t row, Worker& w);
  void solve_huge(std::int64_t row);
  bool solve_cholesky(std::int64_t row, Worker& w) const;
  bool factor_and_solve(std::int64_t row, Worker& w) const;
  void build(const RowEntries& entries, Worker& w) const;
  void build_huge(const RowEntries& entries, Worker& w);
  template <class Product>
  void conjugate_gradients(std::int64_t row, Worker& w, const Product& add_product) const;
  void precondition(std::int64_t row, const float* x, float* out) const;
  bool store(std::int64_t row, const Worker& w) const;

  const AlsParams& params_;
  const double mean_;
  const SharedGram& gram_;
  const AlsSide& others_;
  AlsSide& side_;
  const int num_threads_;
  const kernels::KernelTable& kernels_ = kernel_table();
  const kernels::RowLayout layout_ = others_.factors.layout;
  const bool cg_ = chosen_solver(params_) == LinearSolver::kCg;
  const std::int64_t unknowns_ = unknowns(params_);
  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<std::int64_t> float64_rows_{0};
};

HalfStep::Worker::Worker(const kernels::RowLayout& layout) {
  for (auto* vector : {&inverse, &x, &rhs, &residual, &direction, &product, &preconditioned}) {
    vector->assign(static_cast<std::size_t>(layout.width), 0.0F);
  }
}

HalfStep::Worker& HalfStep::worker(int i) {
  auto& w = workers_[static_cast<std::size_t>(i)];
  if (!w) w = std::make_unique<Worker>(layout_);
  return *w;
}

void HalfStep::gather(const RowEntries& entries, std::int64_t first, std::int64_t n, Worker& w, float* rows,
                      float* rhs) const {
  if (w.targets.size() < static_cast<std::size_t>(n)) {
    w.targets.resize(static_cast<std::size_t>(n));
    w.scales.resize(static_cast<std::size_t>(n));
  }
  const std::int32_t* ids = entries.ids + first;
  const float* values = entries.values + first;
  const float* scales = nullptr;
  const float* targets = values;
  if (params_.objective == AlsObjective::kImplicit) {
    kernels_.implicit_entries(values, n, static_cast<float>(params_.alpha), w.scales.data(), w.targets.data());
    scales = w.scales.data();
    targets = w.targets.data();
  } else if (params_.biases) {
    for (std::int64_t j = 0; j < n; ++j) {
      w.targets[static_cast<std::size_t>(j)] =
          static_cast<float>(values[j] - mean_) - others_.biases[static_cast<std::size_t>(ids[j])];
    }
    targets = w.targets.data();
  }
  kernels_.gather_rows(others_.factors.values.data(), layout_, ids, scales, targets, n, rows, rhs);
}

bool HalfStep::store(std::int64_t row, const Worker& w) const {
  for (std::int64_t j = 0; j < unknowns_; ++j) {
    if (!std::isfinite(w.x[static_cast<std::size_t>(j)])) return false;
  }
  side_.assign(row, params_, w.x.data());
  return true;
}

void HalfStep::build(const RowEntries& entries, Worker& w) const {
  const std::int64_t strip = strip_rows();
  w.rows.resize(static_cast<std::size_t>(strip * layout_.stride));
  w.matrix.resize(matrix_size());
  std::fill(w.x.begin(), w.x.end(), 0.0F);
  const float* base = gram_.base.data();
  for (std::int64_t first = 0; first < entries.n; first += strip) {
    const std::int64_t n = std::min(strip, entries.n - first);
    gather(entries, first, n, w, w.rows.data(), w.x.data());
    kernels_.add_gram(w.rows.data(), layout_, n, base, w.matrix.data());
    base = w.matrix.data();
  }
}

void HalfStep::build_huge(const RowEntries& entries, Worker& w) {
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
                   gather(entries, first, n, own, own.rows.data(), own.rhs.data());
                   kernels_.add_gram(own.rows.data(), layout_, n, zeros.data(), own.matrix.data());
                   widen_upper(own.matrix.data(), layout_, out.data());
                   for (std::size_t j = 0; j < own.rhs.size(); ++j) out[own.matrix.size() + j] += own.rhs[j];
                 }
               });
  for (std::size_t j = 0; j < w.matrix.size(); ++j) w.matrix[j] = static_cast<float>(sum[j]);
  for (std::size_t j = 0; j < w.x.size(); ++j) w.x[j] = static_cast<float>(sum[w.matrix.size() + j]);
}

bool HalfStep::factor_and_solve(std::int64_t row, Worker& w) const {
  const auto penalty = static_cast<float>(side_.penalty(row));
  for (std::int64_t j = 0; j < unknowns_; ++j) w.matrix[static_cast<std::size_t>(j * layout_.stride + j)] += penalty;
  if (!kernels_.factor_spd(w.matrix.data(), layout_, w.inverse.data())) return false;
  kernels_.solve_factored(w.matrix.data(), layout_, w.inverse.data(), w.x.data());
  return store(row, w);
}

void HalfStep::precondition(std::int64_t row, const float* x, float* out) const {
  if (!gram_.inverse.empty()) {
    kernels_.symmetric_product(gram_.inverse.data(), layout_, x, out);
    return;
  }
  const auto n = static_cast<float>(side_.interactions.row_size(row));
  const auto penalty = static_cast<float>(side_.penalty(row));
  for (std::int64_t j = 0; j < layout_.width; ++j) {
    const float diagonal = gram_.squares.empty() ? 1.0F : n * gram_.squares[static_cast<std::size_t>(j)] + penalty;
    out[j] = diagonal > 0 ? x[j] / diagonal : x[j];
  }
}

/// Solves from the row's present values on; w.rhs is given. `add_product(p, out)` adds the entries' part of A p.
template <class Product>
void HalfStep::conjugate_gradients(std::int64_t row, Worker& w, const Product& add_product) const {
  const auto width = layout_.width;
  const auto dot = [&](const auto& a, const auto& b) { return kernels_.canonical_dot(a.data(), b.data(), width); };
  const auto multiply = [&](const AlignedVector<float>& p, AlignedVector<float>& out) {
    if (gram_.exact.empty()) {
      std::fill(out.begin(), out.end(), 0.0F);
    } else {
      kernels_.symmetric_product(gram_.base.data(), layout_, p.data(), out.data());
    }
    kernels_.add_scaled(static_cast<float>(side_.penalty(row)), p.data(), width, out.data());
    add_product(p.data(), out.data());
  };
  if (std::all_of(w.rhs.begin(), w.rhs.end(), [](float b) { return b == 0; })) {
    std::fill(w.x.begin(), w.x.end(), 0.0F);  // nothing but dislikes: exactly 0, as Cholesky finds
    return;
  }
  std::copy_n(side_.factors.row(row), width, w.x.begin());
  if (params_.biases) w.x[static_cast<std::size_t>(params_.factors)] = side_.biases[static_cast<std::size_t>(row)];

  multiply(w.x, w.product);
  w.residual = w.rhs;
  kernels_.add_scaled(-1.0F, w.product.data(), width, w.residual.data());
  precondition(row, w.residual.data(), w.direction.data());
  double energy = dot(w.residual, w.direction);
  for (std::int64_t step = 0; step < params_.cg_steps && energy > 0; ++step) {
    multiply(w.direction, w.product);
    const double curvature = dot(w.direction, w.product);
    if (!(curvature > 0)) break;
    const auto length = static_cast<float>(energy / curvature);
    kernels_.add_scaled(length, w.direction.data(), width, w.x.data());
    kernels_.add_scaled(-length, w.product.data(), width, w.residual.data());
    precondition(row, w.residual.data(), w.preconditioned.data());
    const double next = dot(w.residual, w.preconditioned);
    kernels_.add_scaled(static_cast<float>(next / energy), w.direction.data(), width, w.preconditioned.data());
    std::swap(w.direction, w.preconditioned);
    energy = next;
  }
}

void HalfStep::solve(std::int64_t row, Worker& w) {
  bool solved = false;
  if (!params_.double_precision && cg_) {
    const RowEntries all = entries(row);
    w.rows.resize(std::max(w.rows.size(), static_cast<std::size_t>(all.n * layout_.stride)));
    std::fill(w.rhs.begin(), w.rhs.end(), 0.0F);
    gather(all, 0, all.n, w, w.rows.data(), w.rhs.data());
    conjugate_gradients(row, w, [&](const float* p, float* out) {
      kernels_.add_normal_product(w.rows.data(), layout_, all.n, p, out);
    });
    solved = store(row, w);
  } else if (!params_.double_precision) {
    build(entries(row), w);
    solved = factor_and_solve(row, w);
  }
  if (solved) return;
  solve_row_in_float64(params_, mean_, gram_, others_, side_, row);
  float64_rows_.fetch_add(1, std::memory_order_relaxed);
}

/// All threads on one row, a fixed run of its entries at a time.
void HalfStep::solve_huge(std::int64_t row) {
  const RowEntries all = entries(row);
  Worker w(layout_);
  bool solved = false;
  if (!params_.double_precision && cg_) {
    const auto over_entries = [&](const float* p, float* out) {
      // With p, the product of the entries with p; without, their right-hand side.
      std::vector<double> sum(static_cast<std::size_t>(layout_.width), 0.0);
      sum_in_order((all.n + kHugeChunk - 1) / kHugeChunk, num_threads_, sum,
                   [&](std::int64_t chunk, int i, std::span<double> part) {
                     Worker& own = worker(i);
                     own.rows.resize(static_cast<std::size_t>(kMicroRows * layout_.stride));
                     const std::int64_t end = std::min(all.n, (chunk + 1) * kHugeChunk);
                     for (std::int64_t first = chunk * kHugeChunk; first < end; first += kMicroRows) {
                       const std::int64_t n = std::min(kMicroRows, end - first);
                       std::fill(own.rhs.begin(), own.rhs.end(), 0.0F);
                       std::fill(own.product.begin(), own.product.end(), 0.0F);
                       gather(all, first, n, own, own.rows.data(), own.rhs.data());
                       if (p != nullptr) {
                         kernels_.add_normal_product(own.rows.data(), layout_, n, p, own.product.data());
                       }
                       const auto& micro = p != nullptr ? own.product : own.rhs;
                       for (std::size_t j = 0; j < part.size(); ++j) part[j] += micro[j];
                     }
                   });
      for (std::size_t j = 0; j < sum.size(); ++j) out[j] += static_cast<float>(sum[j]);
    };
    over_entries(nullptr, w.rhs.data());
    conjugate_gradients(row, w, over_entries);
    solved = store(row, w);
  } else if (!params_.double_precision) {
    build_huge(all, w);
    solved = factor_and_solve(row, w);
  }
  if (solved) return;
  solve_row_in_float64(params_, mean_, gram_, others_, side_, row);
  float64_rows_.fetch_add(1, std::memory_order_relaxed);
}

std::int64_t HalfStep::run() {
  const std::vector<std::size_t>& chunks = side_.chunks;
  workers_.resize(static_cast<std::size_t>(plan_workers(1 << 30, num_threads_)));
  for (std::size_t i = 0; i < side_.n_huge; ++i) solve_huge(side_.order[i]);
  parallel_for(static_cast<std::int64_t>(chunks.size()) - 1, num_threads_, [&](std::int64_t chunk, int i) {
    Worker& w = worker(i);
    const auto c = static_cast<std::size_t>(chunk);
    for (std::size_t at = chunks[c]; at < chunks[c + 1]; ++at) solve(side_.order[at], w);
  });
  for (std::int64_t row = 0; row < side_.interactions.rows; ++row) {
    if (side_.interactions.row_size(row) > 0) continue;
    std::fill_n(side_.factors.row(row), params_.factors, 0.0F);
    if (params_.biases) side_.biases[static_cast<std::size_t>(row)] = 0.0F;
  }
  return float64_rows_.load();
}

}  // namespace

std::int64_t solve_side(const AlsParams& params, double mean, const SharedGram& gram, const AlsSide& others,
                        AlsSide& side, int num_threads) {
  return HalfStep(params, mean, gram, others, side, num_threads).run();
}

}  // namespace recfuse
