#include "ops/als_cost.hpp"

#include <algorithm>
#include <array>

#include "ops/als_entries.hpp"
#include "recfuse/als_problem.hpp"

namespace recfuse {
namespace {

// CPU nanoseconds, measured with rows of 8 to 512 entries and 16 to 256 factors on one core of an AMD EPYC (Zen 4,
// AVX-512); docs/performance.md has the table. Only their ratios matter, and they are the same everywhere so that
// results are: w stands for the width of a row's factors, n for its entries, p for n rounded up to a register.
constexpr double kRow = 150, kElement = 0.5, kFactor = 0.0019;       // solving: kRow + kElement w^2 + kFactor w^3
constexpr double kEntry = 1, kGather = 0.23, kOuter = 0.0093;        // an entry: kEntry + kGather w + kOuter w^2
constexpr double kDualRow = 500, kTranspose = 0.1, kInner = 0.0103;  // kDualRow + kTranspose p w + kInner p^2 w
constexpr double kTurn = 0.018, kEigen = 1.2, kTriangle = 0.17;      // turning a row: kTurn w^2; finding how: w^3
constexpr double kCgRow = 200, kCgElement = 4, kPass = 0.075, kFetch = 0.08;  // an entry: (passes kPass + kFetch) w
constexpr double kFirstAndLast = 0.5;  // passes beside those of the steps: a gradient more, half of the last one less
constexpr double kBlockRow = 3500, kBlockEntry = 62;  // of one block of 64 unknowns

// als_iterations, after this many steps and more.
constexpr std::array<double, 4> kImplicitSteps{1.6, 1.1, 1.0, 1.0};
constexpr std::array<double, 4> kExplicitSteps{2.5, 1.5, 1.1, 1.0};
constexpr double kExplicitBlocks = 1.2;

double round_up(double n, double step) {
  const auto whole = static_cast<std::int64_t>((n + step - 1) / step);
  return step * static_cast<double>(whole);
}

/// Costs of one half-step's parts.
class Costs {
 public:
  explicit Costs(const AlsParams& params) : params_(params) {}

  double exact(double n) const { return solving(width_) + n * (kEntry + kGather * width_ + kOuter * width_ * width_); }

  double dual(double n) const {
    const double p = round_up(n, 16);
    return kDualRow + turn(false) + solving(p) + kTranspose * p * width_ + kInner * p * p * width_;
  }

  double cg(double n) const {
    const double width = round_up(width_, 32), passes = static_cast<double>(params_.cg_steps) + kFirstAndLast;
    return kCgRow + kCgElement * width * passes / 3 + 2 * turn(by_triangle()) +
           n * (2 + (kPass * passes + kFetch) * width);
  }

  double block(double n) const { return 2 * turn(false) + blocks() * (kBlockRow + kBlockEntry * n); }
  double blocks() const { return round_up(static_cast<double>(unknowns(params_)), 64) / 64; }

  /// Finding the coordinates, and turning the other side.
  double coordinates(std::int64_t n_others, LinearSolver solver) const {
    if (params_.objective == AlsObjective::kExplicit) return 0;
    const bool triangle = solver == LinearSolver::kCg && by_triangle();
    const double finding = triangle ? kTriangle : kEigen;
    return finding * width_ * width_ * width_ + turn(triangle) * static_cast<double>(n_others);
  }

 private:
  /// Whether rows that are solved by steps share their penalty, so that they need no eigenvectors
  /// (als_coordinates.hpp).
  bool by_triangle() const { return params_.frequency_scaling == 0; }

  /// A row into the coordinates or back. Of a triangle, what lies in its panels is multiplied.
  double turn(bool triangle) const {
    if (params_.objective == AlsObjective::kExplicit) return 0;
    return kTurn * width_ * (triangle ? (width_ + static_cast<double>(kernels::kPanel)) / 2 : width_);
  }
  static double solving(double width) { return kRow + width * width * (kElement + kFactor * width); }

  const AlsParams& params_;
  const double width_ = static_cast<double>(layout_for(unknowns(params_)).width);
};

/// The sum over rows with entries.
template <class Cost>
double sum_over_rows(const CsrView& csr, const Cost& cost) {
  double sum = 0;
  for (std::int64_t row = 0; row < csr.rows; ++row) {
    if (csr.row_size(row) > 0) sum += cost(csr.row_size(row));
  }
  return sum;
}

/// The longest row that its own system solves sooner, and what they all save.
struct DualChoice {
  std::int64_t longest = 0;
  double saved = 0;
};

DualChoice dual_choice(const AlsParams& params, const CsrView& csr, std::int64_t n_others) {
  const Costs costs(params);
  const auto saving = [&](std::int64_t n) {
    return costs.exact(static_cast<double>(n)) - costs.dual(static_cast<double>(n));
  };
  DualChoice choice{unknowns(params), -costs.coordinates(n_others, LinearSolver::kCholesky)};
  while (choice.longest > 0 && saving(choice.longest) <= 0) --choice.longest;
  for (std::int64_t row = 0; row < csr.rows; ++row) {
    const RowEntries entries{csr.row_indices(row), csr.row_values(row), csr.row_size(row)};
    const bool able = entries.n > 0 && entries.n <= choice.longest && !has_negative_weight(params, entries);
    if (able) choice.saved += saving(entries.n);
  }
  return choice.saved > 0 ? choice : DualChoice{};
}

/// Of an iteration, times how many of them the solver needs.
double cost_of(LinearSolver solver, const AlsParams& params, const CsrView& user_items, const CsrView& item_users) {
  const Costs costs(params);
  double sum = 0;
  for (const CsrView* side : {&user_items, &item_users}) {
    const std::int64_t n_others = side->cols;
    if (solver == LinearSolver::kCholesky) {
      sum += sum_over_rows(*side, [&](std::int64_t n) { return costs.exact(static_cast<double>(n)); });
      sum -= dual_choice(params, *side, n_others).saved;
      continue;
    }
    const bool by_steps = solver == LinearSolver::kCg;
    sum += costs.coordinates(n_others, solver);
    sum += sum_over_rows(*side, [&](std::int64_t n) {
      return by_steps ? costs.cg(static_cast<double>(n)) : costs.block(static_cast<double>(n));
    });
  }
  return sum * als_iterations(params, solver);
}

}  // namespace

double als_iterations(const AlsParams& params, LinearSolver solver) {
  const bool implicit = params.objective == AlsObjective::kImplicit;
  if (solver == LinearSolver::kCg) {
    const auto& of_steps = implicit ? kImplicitSteps : kExplicitSteps;
    return of_steps[static_cast<std::size_t>(std::min<std::int64_t>(params.cg_steps, 4) - 1)];
  }
  const bool coupled = solver == LinearSolver::kBlock && unknowns(params) > 64;
  return coupled && !implicit ? kExplicitBlocks : 1.0;
}

std::int64_t longest_dual_row(const AlsParams& params, const AlsSide& side, std::int64_t n_others) {
  if (params.double_precision || side.n_huge == side.order.size()) return 0;
  const std::int64_t longest = std::min(side.interactions.row_size(side.order[side.n_huge]), unknowns(params));
  const std::int64_t wanted =
      params.dual_entries >= 0 ? params.dual_entries : dual_choice(params, side.interactions, n_others).longest;
  return std::min(wanted, longest);
}

LinearSolver chosen_solver(const AlsParams& params, const CsrView& user_items, const CsrView& item_users) {
  if (params.solver != LinearSolver::kAuto) return params.solver;
  LinearSolver best = LinearSolver::kCholesky;
  double least = cost_of(best, params, user_items, item_users);
  for (const LinearSolver solver : {LinearSolver::kCg, LinearSolver::kBlock}) {
    const double cost = cost_of(solver, params, user_items, item_users);
    if (!(cost < least)) continue;
    best = solver;
    least = cost;
  }
  return best;
}

}  // namespace recfuse
