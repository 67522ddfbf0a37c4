#include "ops/als_dual.hpp"

#include <algorithm>
#include <cmath>

#include "isa/dispatch.hpp"
#include "ops/als_cost.hpp"
#include "parallel_for.hpp"

namespace recfuse {
namespace {

using kernels::kTurnedRows;

// A pivot below this share of its diagonal element says that entries nearly repeat one another, and s is then long
// against x: the other system does not suffer from that.
constexpr float kSmallestShare = 1.0F / 32;

}  // namespace

/// Scratch of one thread. Systems are as wide as the longest row.
struct DualRows::Worker {
  Worker(const kernels::RowLayout& factors, const kernels::RowLayout& system)
      : turn(factors),
        rows(static_cast<std::size_t>(factors.width * system.stride)),
        matrix(static_cast<std::size_t>(system.width * system.stride)) {
    for (auto* vector : {&inverse, &diagonal, &right}) vector->resize(static_cast<std::size_t>(system.width));
    spread.resize(static_cast<std::size_t>(factors.width));
  }

  TurnScratch turn;
  EntryTerms terms;
  AlignedVector<float> rows, matrix;  // R', and I + R R'
  AlignedVector<float> inverse, diagonal, right;
  AlignedVector<float> spread;  // D^-1/2 of rows with this penalty
  double penalty = -1;
};

DualRows::DualRows(const HalfStepInput& input, AlignedVector<float>& table)
    : input_(input),
      kernels_(kernel_table()),
      layout_(input.others.factors.layout),
      unknowns_(unknowns(input.params)),
      first_(input.side.order.size()),
      turned_(table) {
  longest_ = longest_dual_row(input.params, input.side, input.others.factors.rows);
  if (longest_ == 0) return;
  find_coordinates();
  if (!coordinates_->found) return;
  const auto is_long = [&](std::int32_t row) { return input_.side.interactions.row_size(row) > longest_; };
  const auto& order = input_.side.order;
  first_ = static_cast<std::size_t>(std::partition_point(order.begin(), order.end(), is_long) - order.begin());
  const kernels::RowLayout system = layout_for(longest_);
  zeros_.assign(static_cast<std::size_t>(system.width * system.stride), 0.0F);
  workers_.resize(static_cast<std::size_t>(plan_workers(1 << 30, input.num_threads)));
}

DualRows::~DualRows() = default;

void DualRows::find_coordinates() {
  coordinates_ = std::make_unique<const Coordinates>(input_.params, input_.gram, layout_);
  if (!coordinates_->found) return;
  const FactorTable& others = input_.others.factors;
  if (coordinates_->eigenvalues.empty()) {
    table_ = others.values.data();
    return;
  }
  least_eigenvalue_ = *std::min_element(coordinates_->eigenvalues.begin(), coordinates_->eigenvalues.end());
  make_room(turned_, others.rows * layout_.stride);
  table_ = turned_.data();
  turn_table(others, *coordinates_, input_.num_threads, [&](std::int64_t first, std::int64_t n, const float* rows) {
    std::copy_n(rows, n * layout_.stride, turned_.data() + first * layout_.stride);
  });
}

DualRows::Worker& DualRows::worker(int i) {
  auto& w = workers_[static_cast<std::size_t>(i)];
  if (!w) w = std::make_unique<Worker>(layout_, layout_for(longest_));
  return *w;
}

/// False: D has elements that are rounding.
bool DualRows::set_spread(double penalty, Worker& w) const {
  const double least = least_eigenvalue_ + penalty;
  if (!(least > 0) || least < coordinates_->least) return false;
  if (w.penalty == penalty) return true;
  w.penalty = penalty;
  for (std::int64_t j = 0; j < unknowns_; ++j) {
    const auto at = static_cast<std::size_t>(j);
    const double eigenvalue = coordinates_->eigenvalues.empty() ? 0.0 : coordinates_->eigenvalues[at];
    w.spread[at] = static_cast<float>(1 / std::sqrt(penalty + eigenvalue));
  }
  return true;
}

bool DualRows::solve_row(std::size_t at, float* x, Worker& w) const {
  const AlsSide& side = input_.side;
  const std::int32_t row = side.order[at];
  const RowEntries entries = entries_of(side, row);
  const RowEntries next = at + 1 < side.order.size() ? entries_of(side, side.order[at + 1]) : RowEntries{};
  if (!set_spread(side.penalty(row), w)) return false;
  w.terms.set(input_.params, input_.mean, input_.others, entries, 0, entries.n);
  const bool weighted = input_.params.objective == AlsObjective::kImplicit;
  const std::int32_t* ids = entries.ids;
  if (w.terms.take_roots(input_.params, ids, entries.n) < entries.n) return false;  // I + R R' has only sums
  std::fill(w.right.begin(), w.right.end(), 0.0F);
  for (std::size_t j = 0; j < static_cast<std::size_t>(entries.n); ++j) {
    const float target = w.terms.targets[j];
    if (target == 0) continue;
    if (!(w.terms.weights[j] > 0)) return false;  // an entry that is in the right-hand side alone
    w.right[j] = target / w.terms.weights[j];
  }
  const kernels::RowLayout system = layout_for(entries.n);
  kernels_.gather_transposed(table_, layout_, ids, weighted ? w.terms.weights.data() : nullptr, w.spread.data(),
                             entries.n, system, w.rows.data());
  kernels_.add_gram(w.rows.data(), system, unknowns_, zeros_.data(), w.matrix.data(),
                    {table_, layout_, next.ids, next.n});
  for (std::size_t j = 0; j < static_cast<std::size_t>(system.width); ++j) {
    float& diagonal = w.matrix[j * static_cast<std::size_t>(system.stride) + j];
    diagonal += 1;
    w.diagonal[j] = diagonal;
  }
  if (!kernels_.factor_spd(w.matrix.data(), system, w.inverse.data())) return false;
  for (std::size_t j = 0; j < static_cast<std::size_t>(entries.n); ++j) {
    if (!(w.diagonal[j] * w.inverse[j] * w.inverse[j] <= 1 / kSmallestShare)) return false;
  }
  kernels_.solve_factored(w.matrix.data(), system, w.inverse.data(), w.right.data());
  std::fill_n(x, layout_.width, 0.0F);
  kernels_.add_row_products(w.rows.data(), system, unknowns_, w.right.data(), x);
  for (std::int64_t j = 0; j < unknowns_; ++j) x[j] *= w.spread[static_cast<std::size_t>(j)];
  return std::all_of(x, x + unknowns_, [](float value) { return std::isfinite(value); });
}

unsigned DualRows::solve(std::size_t first, std::size_t end, int i) {
  Worker& w = worker(i);
  unsigned failed = 0;
  const auto place = [&](AlignedVector<float>& rows, std::size_t at) {
    return rows.data() + static_cast<std::int64_t>(at - first) * layout_.stride;
  };
  for (std::size_t at = first; at < end; ++at) {
    if (!solve_row(at, place(w.turn.turned, at), w)) failed |= 1U << (at - first);
  }
  coordinates_->turn_back(w.turn.turned.data(), w.turn.rows.data());
  for (std::size_t at = first; at < end; ++at) {
    if ((failed >> (at - first) & 1U) != 0) continue;
    input_.side.assign(input_.side.order[at], input_.params, place(w.turn.rows, at));
  }
  return failed;
}

}  // namespace recfuse
