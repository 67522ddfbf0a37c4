// Which solver a problem is given to on a device, and which rows have systems of their entries: host code.
#pragma once

#include <algorithm>
#include <cstdint>

#include "als_block.cuh"
#include "recfuse/als_problem.hpp"

namespace recfuse::cuda {

/// How long rows take, in nanoseconds of an H200. Predicted from operations and bytes; nothing of it has been measured.
/// The choice depends on the lengths of the rows and the parameters alone, never on the device.
class AlsCosts {
 public:
  explicit AlsCosts(const AlsParams& params)
      : params_(params),
        width_(static_cast<double>(SystemShape{static_cast<int>(params.factors) + (params.biases ? 1 : 0)}.padded())),
        turn_(params.objective == AlsObjective::kImplicit ? width_ * width_ / kSums : 0.0) {}

  double exact(double n) const { return n * (read() + width_ * width_ / 2 / kSums) + factoring(width_); }

  double dual(double n) const { return turn_ + n * (read() + (n / 2 + 1) * width_ / kSums) + factoring(n); }

  double cg(double n) const {
    const auto passes = static_cast<double>(params_.cg_steps + 1);
    return 2 * turn_ + passes * (n * read() + kPass * width_);
  }

  double block(double n) const {
    constexpr double kUnknowns = kBlockUnknowns;
    const double blocks = width_ <= kUnknowns ? 1.0 : width_ / kUnknowns;
    return 2 * turn_ + 2 * n * read() + blocks * (n * kUnknowns * kUnknowns / 2 / kSums + factoring(kUnknowns));
  }

  /// Finding the coordinates, on the host, and turning the other side.
  double coordinates(std::int64_t n_others) const {
    if (params_.objective == AlsObjective::kExplicit) return 0;
    return kTransfer + kEigen * width_ * width_ * width_ + turn_ * static_cast<double>(n_others);
  }

 private:
  static constexpr double kBytes = 3000, kSums = 8000;     // of gathers; multiply-adds where threads have much to do
  static constexpr double kFactor = 3000;                  // and where they wait for each other
  static constexpr double kPass = 0.02;                    // of an unknown, beside the entries
  static constexpr double kTransfer = 50'000, kEigen = 1;  // of a cube of the unknowns

  double read() const { return 4 * width_ / kBytes; }
  static double factoring(double n) { return n * n * n / 6 / kFactor; }

  const AlsParams& params_;
  double width_, turn_;
};

template <class Cost>
double sum_over_rows(const std::int64_t* indptr, std::int64_t rows, const Cost& cost) {
  double sum = 0;
  for (std::int64_t row = 0; row < rows; ++row) {
    if (indptr[row + 1] > indptr[row]) sum += cost(static_cast<double>(indptr[row + 1] - indptr[row]));
  }
  return sum;
}

/// The longest row with a system of its entries, and what all of them save; none where that does not pay.
struct DualChoice {
  std::int64_t longest = 0;
  double saved = 0;
};

inline DualChoice dual_choice(const AlsParams& params, const std::int64_t* indptr, std::int64_t rows,
                              std::int64_t n_others) {
  const AlsCosts costs(params);
  const auto saving = [&](double n) { return costs.exact(n) - costs.dual(n); };
  DualChoice choice{params.factors / 2, -costs.coordinates(n_others)};
  const auto longest = static_cast<double>(choice.longest);
  choice.saved += sum_over_rows(indptr, rows, [&](double n) { return n <= longest ? std::max(saving(n), 0.0) : 0.0; });
  return choice.saved > 0 ? choice : DualChoice{};
}

/// The longest row of a side that is solved so, as dual_entries says.
inline std::int64_t longest_dual_row(const AlsParams& params, const CsrView& side) {
  if (params.double_precision || params.dual_entries == 0) return 0;
  if (params.dual_entries > 0) return std::min(params.dual_entries, params.factors + (params.biases ? 1 : 0));
  return dual_choice(params, side.indptr, side.rows, side.cols).longest;
}

/// params.solver, or what kAuto stands for: the solver that is predicted to approach the minimum soonest.
inline LinearSolver chosen_on_device(const AlsParams& params, const CsrView& user_items, const CsrView& item_users) {
  if (params.solver != LinearSolver::kAuto) return params.solver;
  const AlsCosts costs(params);
  double exact = 0, cg = 0, block = 0;
  for (const CsrView* side : {&user_items, &item_users}) {
    const auto sum = [&](const auto& cost) { return sum_over_rows(side->indptr, side->rows, cost); };
    exact += sum([&](double n) { return costs.exact(n); });
    exact -= dual_choice(params, side->indptr, side->rows, side->cols).saved;
    cg += costs.coordinates(side->cols) + sum([&](double n) { return costs.cg(n); });
    block += costs.coordinates(side->cols) + sum([&](double n) { return costs.block(n); });
  }
  cg *= als_iterations(params, LinearSolver::kCg);
  block *= als_iterations(params, LinearSolver::kBlock);
  if (cg < exact && cg <= block) return LinearSolver::kCg;
  return block < exact ? LinearSolver::kBlock : LinearSolver::kCholesky;
}

}  // namespace recfuse::cuda
