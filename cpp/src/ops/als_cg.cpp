#include "ops/als_cg.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <optional>

#include "isa/dispatch.hpp"
#include "ops/als_entries.hpp"
#include "ops/ordered_sum.hpp"

namespace recfuse {
namespace {

// So few steps leave more error than rounding the other side's factors to bfloat16 does, and half the bytes are half
// the time of what is bound by memory; who asks for more wants the solution itself.
constexpr std::int64_t kMostRoundedSteps = 4;
constexpr std::int64_t kKeptWords = 1 << 17;  // 512 KiB of a row's gathered factors: longer rows gather in each pass
constexpr std::int64_t kMicroRows = 256;      // added in float32; beyond, in float64
constexpr std::int64_t kHugeChunk = 1 << 14;  // entries of a huge row that one thread takes
constexpr float kSmallestShare = 0x1p-12F;    // of what all rows share: what a row may leave of it by subtracting
constexpr float kSmallestEnergy = 0x1p-50F;   // of the first: beyond, steps follow the rounding of float32

/// If there is one.
std::optional<double> shared_penalty(const AlsSide& side) {
  return side.penalties.size() == 1 ? std::optional(side.penalties[0]) : std::nullopt;
}

std::int64_t packed_width(const kernels::RowLayout& layout) { return (layout.width + 31) / 32 * 32; }

class CgHalfStep {
 public:
  CgHalfStep(const HalfStepInput& input, AlignedVector<float>& table)
      : input_(input),
        coordinates_(input.params, input.gram, input.others.factors.layout, shared_penalty(input.side)),
        table_(table) {
    if (coordinates_.found) copy_others();
  }

  std::int64_t run();

 private:
  /// Scratch of one thread. Vectors have packed_width_ elements.
  struct Worker {
    Worker(const kernels::RowLayout& layout, std::int64_t width);
    TurnScratch turn;
    EntryTerms terms;
    AlignedVector<float> rows;
    AlignedVector<float> x, residual, direction, product, preconditioned, diagonal, inverse;
    bool has_diagonal = false;  // which all rows share
  };

  Worker& worker(int i);
  kernels::PassSource source(const std::int32_t* ids) const {
    return {table_.data(), ids, packed_width_, words_, rounded_};
  }
  void copy_others();
  void fetch(std::size_t at) const;
  void move_some(std::size_t first, std::size_t end, Worker& w);
  bool solve(std::int64_t row, Worker& w) const;
  bool solve_huge(std::int64_t row, Worker& w);
  void set_diagonal(std::int64_t row, Worker& w) const;
  template <class Pass, class Curvature>
  bool conjugate_gradients(std::int64_t row, Worker& w, const Pass& pass, const Curvature& curvature_of) const;

  const HalfStepInput& input_;
  const AlsParams& params_ = input_.params;
  const AlsSide& side_ = input_.side;
  const Coordinates coordinates_;
  const kernels::KernelTable& kernels_ = kernel_table();
  const kernels::RowLayout layout_ = coordinates_.layout;
  const std::int64_t unknowns_ = unknowns(params_);
  // Where terms are subtracted, rounded ones could leave a system that is not positive definite.
  const bool rounded_ = coordinates_.found && params_.base_confidence == 1 && params_.cg_steps <= kMostRoundedSteps &&
                        side_.interactions.nnz() > 0 &&
                        rounding_is_harmless(params_, input_.mean, coordinates_, input_.others, side_);
  const std::int64_t packed_width_ = packed_width(layout_);
  const std::int64_t words_ = rounded_ ? packed_width_ / 2 : packed_width_;
  AlignedVector<float>& table_;  // the others' factors as a pass reads them
  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<std::int64_t> float64_rows_{0};
};

CgHalfStep::Worker::Worker(const kernels::RowLayout& layout, std::int64_t width) : turn(layout) {
  for (auto* vector : {&x, &residual, &direction, &product, &preconditioned, &diagonal, &inverse}) {
    vector->assign(static_cast<std::size_t>(width), 0.0F);
  }
}

CgHalfStep::Worker& CgHalfStep::worker(int i) {
  auto& w = workers_[static_cast<std::size_t>(i)];
  if (!w) w = std::make_unique<Worker>(layout_, packed_width_);
  return *w;
}

void CgHalfStep::copy_others() {
  const FactorTable& others = input_.others.factors;
  make_room(table_, others.rows * words_);
  turn_table(others, coordinates_, input_.num_threads, [&](std::int64_t first, std::int64_t n, const float* rows) {
    float* out = table_.data() + first * words_;
    if (rounded_) {
      kernels_.round_rows(rows, layout_.stride, unknowns_, n, packed_width_, reinterpret_cast<std::uint32_t*>(out));
      return;
    }
    for (std::int64_t i = 0; i < n; ++i) {
      float* behind = std::copy_n(rows + i * layout_.stride, layout_.width, out + i * words_);
      std::fill_n(behind, words_ - layout_.width, 0.0F);
    }
  });
}

/// What the row at order[at] will gather: rows too short to fetch ahead of themselves wait for each of their entries.
void CgHalfStep::fetch(std::size_t at) const {
  constexpr std::int64_t kLine = 16, kFetched = 24;
  const auto start_of = [&](std::size_t place) {
    RowEntries entries = place < side_.order.size() ? entries_of(side_, side_.order[place]) : RowEntries{};
    entries.n = std::min(entries.n, kFetched);
    return entries;
  };
  const RowEntries soon = start_of(at), later = start_of(at + kernels::kTurnedRows);
  for (std::int64_t j = 0; j < later.n; j += kLine) {
    __builtin_prefetch(later.ids + j);
    __builtin_prefetch(later.values + j);
  }
  for (std::int64_t j = 0; j < soon.n; ++j) {
    const float* row = table_.data() + soon.ids[j] * words_;
    for (std::int64_t w = 0; w < words_; w += kLine) __builtin_prefetch(row + w, 0, 2);
  }
}

void CgHalfStep::set_diagonal(std::int64_t row, Worker& w) const {
  w.has_diagonal = side_.penalties.size() == 1 && !input_.gram.exact.empty();
  const double penalty = side_.penalty(row);
  const auto n = static_cast<double>(side_.interactions.row_size(row));
  for (std::int64_t j = 0; j < unknowns_; ++j) {
    const auto at = static_cast<std::size_t>(j);
    double diagonal = penalty, near = penalty;
    if (coordinates_.is_identity) {
      diagonal = near = 1;
    } else if (!coordinates_.eigenvalues.empty()) {
      diagonal += coordinates_.eigenvalues[at];
      near = std::max(diagonal, coordinates_.least);
    } else if (!input_.gram.squares.empty()) {
      near += n * static_cast<double>(input_.gram.squares[at]);
    }
    w.diagonal[at] = static_cast<float>(diagonal);
    w.inverse[at] = near > 0 ? static_cast<float>(1 / near) : 1.0F;
  }
}

/// Solves from w.x on. pass(true, x, y): y += the gradient of the entries at x; pass(false, p, y): their product with
/// p. curvature(p): the product of p with that, where it comes cheaper; the last step needs no more.
template <class Pass, class Curvature>
bool CgHalfStep::conjugate_gradients(std::int64_t row, Worker& w, const Pass& pass,
                                     const Curvature& curvature_of) const {
  const std::int64_t width = packed_width_;
  const auto dot = [&](const auto& a, const auto& b) { return kernels_.dot_product(a.data(), b.data(), width); };
  if (!w.has_diagonal) set_diagonal(row, w);
  std::fill(w.residual.begin(), w.residual.end(), 0.0F);
  kernels_.multiply_elements(w.diagonal.data(), w.x.data(), width, w.product.data());
  kernels_.add_scaled(-1.0F, w.product.data(), width, w.residual.data());
  pass(true, w.x.data(), w.residual.data());
  kernels_.multiply_elements(w.inverse.data(), w.residual.data(), width, w.direction.data());
  float energy = dot(w.residual, w.direction);
  const float least = kSmallestEnergy * energy;
  for (std::int64_t step = 0; step < params_.cg_steps && energy > least; ++step) {
    kernels_.multiply_elements(w.diagonal.data(), w.direction.data(), width, w.product.data());
    const bool last = step + 1 == params_.cg_steps;
    const float shared = last || params_.base_confidence < 1 ? dot(w.direction, w.product) : 0;
    if (!last) pass(false, w.direction.data(), w.product.data());
    const float curvature = last ? shared + curvature_of(w.direction.data()) : dot(w.direction, w.product);
    if (params_.base_confidence < 1 && shared > 0 && !(curvature > kSmallestShare * shared)) return false;
    if (!(curvature > 0)) break;
    const float length = energy / curvature;
    kernels_.add_scaled(length, w.direction.data(), width, w.x.data());
    if (last) break;
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
  w.terms.set(params_, input_.mean, input_.others, entries, 0, entries.n);
  if (all_zero(w.terms.targets, entries.n)) {
    std::fill(w.x.begin(), w.x.end(), 0.0F);  // nothing but dislikes: exactly 0, as Cholesky finds
    return true;
  }
  const bool kept = entries.n * words_ <= kKeptWords;
  if (kept) w.rows.resize(std::max(w.rows.size(), static_cast<std::size_t>(entries.n * words_)));
  const kernels::PassSource table = source(entries.ids);
  const kernels::PassSource again =
      kept ? kernels::PassSource{w.rows.data(), nullptr, packed_width_, words_, rounded_} : table;
  const float* const weights = w.terms.weights.data();
  const auto pass = [&](bool gradient, const float* x, float* y) {
    kernels_.normal_pass(gradient ? table : again, entries.n, gradient ? w.terms.targets.data() : nullptr, weights, x,
                         kept ? w.rows.data() : nullptr, y);
  };
  return conjugate_gradients(row, w, pass,
                             [&](const float* x) { return kernels_.pass_curvature(again, entries.n, weights, x); });
}

/// All threads on one row, a fixed run of its entries at a time.
bool CgHalfStep::solve_huge(std::int64_t row, Worker& w) {
  const RowEntries entries = entries_of(side_, row);
  std::atomic<bool> any_target{false};
  const auto pass = [&](bool gradient, const float* x, float* y) {
    std::vector<double> sum(static_cast<std::size_t>(packed_width_), 0.0);
    sum_in_order((entries.n + kHugeChunk - 1) / kHugeChunk, input_.num_threads, sum,
                 [&](std::int64_t chunk, int i, std::span<double> part) {
                   Worker& own = worker(i);
                   const std::int64_t end = std::min(entries.n, (chunk + 1) * kHugeChunk);
                   for (std::int64_t first = chunk * kHugeChunk; first < end; first += kMicroRows) {
                     const std::int64_t n = std::min(kMicroRows, end - first);
                     own.terms.set(params_, input_.mean, input_.others, entries, first, n);
                     if (gradient && !all_zero(own.terms.targets, n)) any_target = true;
                     std::fill(own.product.begin(), own.product.end(), 0.0F);
                     kernels_.normal_pass(source(entries.ids + first), n, gradient ? own.terms.targets.data() : nullptr,
                                          own.terms.weights.data(), x, nullptr, own.product.data());
                     for (std::size_t j = 0; j < part.size(); ++j) part[j] += own.product[j];
                   }
                 });
    for (std::size_t j = 0; j < sum.size(); ++j) y[j] += static_cast<float>(sum[j]);
  };
  AlignedVector<float> product(w.product.size());
  const bool finite = conjugate_gradients(row, w, pass, [&](const float* x) {
    std::fill(product.begin(), product.end(), 0.0F);
    pass(false, x, product.data());
    return kernels_.dot_product(x, product.data(), packed_width_);
  });
  if (!any_target) std::fill(w.x.begin(), w.x.end(), 0.0F);
  return finite;
}

void CgHalfStep::move_some(std::size_t first, std::size_t end, Worker& w) {
  float64_rows_ += move_rows(input_, coordinates_, first, end, w.turn, [&](std::size_t at, float* x) {
    std::copy_n(x, layout_.width, w.x.begin());
    fetch(at + kernels::kTurnedRows);
    const bool solved = at < side_.n_huge ? solve_huge(side_.order[at], w) : solve(side_.order[at], w);
    std::copy_n(w.x.begin(), layout_.width, x);
    return solved;
  });
}

std::int64_t CgHalfStep::run() {
  workers_.resize(static_cast<std::size_t>(plan_workers(1 << 30, input_.num_threads)));
  if (side_.n_huge > 0) {
    Worker w(layout_, packed_width_);
    for (std::size_t at = 0; at < side_.n_huge; ++at) move_some(at, at + 1, w);
  }
  const auto n_chunks = static_cast<std::int64_t>(side_.chunks.size()) - 1;
  parallel_for(n_chunks, input_.num_threads, [&](std::int64_t chunk, int i) {
    Worker& w = worker(i);
    const std::size_t end = side_.chunks[static_cast<std::size_t>(chunk) + 1];
    for (std::size_t at = side_.chunks[static_cast<std::size_t>(chunk)]; at < end; at += kernels::kTurnedRows) {
      move_some(at, std::min<std::size_t>(at + kernels::kTurnedRows, end), w);
    }
  });
  return float64_rows_.load();
}

}  // namespace

std::int64_t solve_by_cg(const HalfStepInput& input, AlignedVector<float>& table) {
  return CgHalfStep(input, table).run();
}

}  // namespace recfuse
