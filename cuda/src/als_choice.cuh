// Which solver a problem is given to on a device, and which rows have systems of their entries: host code.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "als_block.cuh"
#include "recfuse/als_memory.hpp"
#include "recfuse/als_problem.hpp"
#include "recfuse/cuda/memory.hpp"
#include "recfuse/errors.hpp"

namespace recfuse::cuda {

/// How long rows take, in nanoseconds of an H200, by the reckoning of docs/performance.md: nothing of it has been
/// measured. The choice depends on the lengths of the rows and the parameters alone, never on the device.
class AlsCosts {
 public:
  explicit AlsCosts(const AlsParams& params)
      : params_(params),
        width_(static_cast<double>(SystemShape{static_cast<int>(params.factors) + (params.biases ? 1 : 0)}.padded())),
        turn_(params.objective == AlsObjective::kImplicit ? width_ * width_ / kSums : 0.0) {}

  double exact(double n) const {
    const bool on_matrix_units = squares_of_warp(static_cast<int>(width_)) > 0;
    const double entry = on_matrix_units ? width_ * (kSplit + kMultiplied * width_) : width_ * width_ / 2 / kSums;
    const double gram = params_.objective == AlsObjective::kImplicit ? 2 * width_ * width_ / kBytes : 0.0;
    return n * entry + gram + solving(width_);
  }

  double dual(double n) const {
    const double system = n * (read() + (n / 2 + 1) * width_ / kSums);
    return turn_ + system + kStep * n + n * n * n / 6 / kShortSums;
  }

  double cg(double n) const {
    const auto passes = static_cast<double>(params_.cg_steps + 1);
    return 2 * turn_ + passes * (n * read() + kVector * width_);
  }

  double block(double n) const {
    constexpr double kUnknowns = kBlockUnknowns;
    const double blocks = width_ <= kUnknowns ? 1.0 : width_ / kUnknowns;
    return 2 * turn_ + 2 * n * read() + blocks * (n * kUnknowns * kUnknowns / 2 / kSums + solving(kUnknowns));
  }

  /// Finding the coordinates, on the host, and turning the other side.
  double coordinates(std::int64_t n_others) const {
    if (params_.objective == AlsObjective::kExplicit) return 0;
    return kTransfer + kEigen * width_ * width_ * width_ + turn_ * static_cast<double>(n_others);
  }

 private:
  static constexpr double kBytes = 5500, kSums = 7200;          // of L2; multiply-adds on tiles in shared memory
  static constexpr double kSplit = 8.4e-4, kMultiplied = 6e-6;  // of an entry's column, to and on the matrix units
  static constexpr double kPanels = 0.4;                        // an unknown's share of the barriers of Cholesky
  static constexpr double kStep = 0.05, kShortSums = 1000;      // the same in a warp
  static constexpr double kVector = 0.02;                       // an unknown's share of a step, beside the entries
  static constexpr double kTransfer = 50'000, kEigen = 1;       // of a cube of the unknowns

  double read() const { return 4 * width_ / kBytes; }
  static double solving(double n) { return std::max(kPanels * n, n * n * n / 6 / kSums); }

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
  DualChoice choice{params.factors, -costs.coordinates(n_others)};
  while (choice.longest > 0 && saving(static_cast<double>(choice.longest)) <= 0) --choice.longest;
  const auto longest = static_cast<double>(choice.longest);
  choice.saved += sum_over_rows(indptr, rows, [&](double n) { return n <= longest ? saving(n) : 0.0; });
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

/// How a fit lies in the memory of a device, which has so much for it, and `beside` bytes more. Throws
/// DeviceOutOfMemory where even streamed interactions are too much.
template <class Device>
AlsPlan planned(const Device& device, const AlsSizes& sizes, const AlsRoom& room, std::int64_t beside) {
  AlsRoom left = room;
  left.device_bytes = std::max<std::int64_t>(0, room.device_bytes - beside);
  AlsPlan plan =
      plan_als(sizes, {device.multiprocessors(), static_cast<std::int64_t>(device.most_shared_bytes())}, left);
  const std::int64_t least = peak_bytes(plan.buffers);
  if (!plan.streamed || least <= left.device_bytes) return plan;
  const MemoryInfo info{static_cast<std::size_t>(room.device_bytes), Device::memory_info(device.index()).total};
  throw DeviceOutOfMemory(out_of_memory_text(static_cast<std::size_t>(least + beside), info, device.index()) +
                          " Interactions would be streamed already: fewer factors take less, and device='cpu' has the "
                          "memory of the host.");
}

/// What a fit may take of a device that it shares with others.
template <class Device>
AlsRoom room_on(int device, const AlsRoom& room, std::int64_t n_sharing = 1) {
  if (room.device_bytes < 1) {
    throw std::invalid_argument("als: device_bytes must be at least 1; got " + std::to_string(room.device_bytes));
  }
  const std::size_t free = Device::memory_info(device).free;
  const auto most = static_cast<std::size_t>(room.device_bytes);
  return {static_cast<std::int64_t>(std::min(free, most)) / n_sharing, room.piece_entries};
}

}  // namespace recfuse::cuda
