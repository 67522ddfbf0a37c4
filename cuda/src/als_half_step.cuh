// One half-step on a device: the least-squares systems of all users, or of all items.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <sstream>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "als_block_step.cuh"
#include "als_cg_step.cuh"
#include "als_coordinates.cuh"
#include "als_dual_step.cuh"
#include "als_rows.cuh"
#include "als_side.cuh"

namespace recfuse::cuda {

/// Device: Gpu, or Emulator.
template <class Device>
class AlsHalfStep {
 public:
  template <class T>
  using Array = typename Device::template Array<T>;
  using Side = AlsSideOnDevice<Device>;

  AlsHalfStep(Device& device, const AlsParams& params, double mean, const AlsLimits& limits)
      : device_(device),
        params_(params),
        mean_(mean),
        limits_(limits),
        shape_{static_cast<int>(params.factors) + (params.biases ? 1 : 0)} {}

  /// sum_i y_i y_i' in float64: float32 only within some rows.
  Array<double> gram(const Side& side) {
    Array<double> sum(device_, static_cast<std::size_t>(shape_.elements()));
    sum.clear();
    RowsOnDevice rows = rows_of(side, side);
    rows.ids = nullptr;
    const std::int64_t n_parts = (side.rows + limits_.gram_rows - 1) / limits_.gram_rows;
    for (std::int64_t first = 0; first < n_parts; first += parts_at_once()) {
      std::vector<Part> parts;
      for (std::int64_t part = first; part < std::min(n_parts, first + parts_at_once()); ++part) {
        parts.push_back({part * limits_.gram_rows, std::min(side.rows, (part + 1) * limits_.gram_rows)});
      }
      const Array<float> sums = built(rows, parts);
      const int n_elements = lower_tiles(shape_.tiles()) * kTile * kTile;
      device_.launch(AddParts{shape_, sums.data(), static_cast<std::int64_t>(parts.size()), sum.data()},
                     (n_elements + AddParts::kThreads - 1) / AddParts::kThreads, 1, 0);
    }
    return sum;
  }

  /// Solves the rows of `side`; `gram` of the others, or empty. Returns how many were solved in float64, because
  /// float32 could not hold a pivot. Throws std::domain_error, which names the row.
  std::int64_t solve(const Side& others, Side& side, const Array<double>& gram) {
    if (side.rows == 0) return 0;
    Array<std::int32_t> failed_rows(device_, side.order.size()), reasons(device_, side.order.size()), count(device_, 1);
    count.clear();
    const Target target{rows_of(side, others),
                        side,
                        gram.size() == 0 ? nullptr : gram.data(),
                        {count.data(), failed_rows.data(), reasons.data()}};
    if (params_.double_precision) return solved_in_float64(target, count, failed_rows, reasons);
    if (params_.solver == LinearSolver::kCg || params_.solver == LinearSolver::kBlock) {
      if (!move(target, others, gram)) return solved_in_float64(target, count, failed_rows, reasons);
    } else {
      solve_exactly(target, others, gram);
    }
    const std::int32_t n_failed = count.all()[0];
    if (n_failed == 0) return 0;
    const std::vector<std::int32_t> found = failed_rows.all();
    const Array<std::int32_t> again(device_, std::span(found).first(static_cast<std::size_t>(n_failed)));
    count.clear();
    solve_in<double, 0>(target, again.data(), n_failed);
    check_solved(side, count, failed_rows, reasons);
    return n_failed;
  }

  RowsOnDevice rows_of(const Side& side, const Side& others) const {
    return {side.indptr.data(),  side.ids.data(), side.values.data(),
            others.table.data(), shape_.size,     params_.objective == AlsObjective::kImplicit,
            params_.biases,      params_.alpha,   mean_};
  }

 private:
  struct Target {
    RowsOnDevice rows;
    Side& side;
    const double* gram;
    UnsolvedRows failed;
  };
  struct Summed {  // parts of rows, which begin at bounds
    const float* parts = nullptr;
    const std::int64_t* bounds = nullptr;
  };

  template <class Memory>
  bool fits() const {
    return Memory::bytes(shape_) <= device_.most_shared_bytes();
  }
  /// Calls f(constant) with what a warp does of a system on the matrix units; 0: nothing is done there.
  template <class F>
  void with_squares(const F& f) const {
    const int squares = squares_of_warp(shape_.size);
    if (squares == 2 && fits<RowMemory<float, true, 2>>()) return f(std::integral_constant<int, 2>());
    if (squares == 5 && fits<RowMemory<float, true, 5>>()) return f(std::integral_constant<int, 5>());
    if (squares == 17 && fits<RowMemory<float, false, 17>>()) return f(std::integral_constant<int, 17>());
    f(std::integral_constant<int, 0>());
  }
  std::int64_t parts_at_once() const {
    return std::max<std::int64_t>(1,
                                  limits_.parts_bytes / (shape_.elements() * static_cast<std::int64_t>(sizeof(float))));
  }

  Array<float> built(const RowsOnDevice& rows, const std::vector<Part>& parts) {
    const Array<Part> there(device_, std::span<const Part>(parts));
    Array<float> sums(device_, parts.size() * static_cast<std::size_t>(shape_.elements()));
    const auto n = static_cast<std::int64_t>(parts.size());
    const auto launch_in = [&](auto body) { device_.launch(body, n, 1, decltype(body)::Memory::bytes(shape_)); };
    const auto launch = [&](auto squares) {
      if constexpr (squares.value > 0) {
        device_.launch(MultiplyParts<squares.value>{rows, shape_, there.data(), sums.data()}, n, 1,
                       StripShape{shape_}.bytes());
      } else if (fits<RowMemory<float, true, 0>>()) {
        launch_in(BuildParts<true>{rows, shape_, there.data(), sums.data()});
      } else {
        launch_in(BuildParts<false>{rows, shape_, there.data(), sums.data()});
      }
    };
    // A Gram matrix is some hundredth of an epoch: not worth a bit of it.
    if (rows.ids == nullptr) {
      launch(std::integral_constant<int, 0>());
    } else {
      with_squares(launch);
    }
    return sums;
  }

  /// All rows, in float64; returns how many had entries.
  std::int64_t solved_in_float64(const Target& target, const Array<std::int32_t>& count,
                                 const Array<std::int32_t>& failed_rows, const Array<std::int32_t>& reasons) {
    const Side& side = target.side;
    solve_in<double, 0>(target, side.order_there.data(), side.rows);
    check_solved(side, count, failed_rows, reasons);
    return side.longer_than(0);
  }

  void solve_exactly(const Target& target, const Side& others, const Array<double>& gram) {
    const Side& side = target.side;
    for (std::int64_t first = 0; first < side.n_long;) first = solve_long(target, first);
    const std::int64_t end = solve_short(target, others, gram);
    solve_by_factors(target, side.order_there.data() + side.n_long, end - side.n_long);
  }

  void solve_by_factors(const Target& target, const std::int32_t* order, std::int64_t n) {
    with_squares([&](auto squares) { solve_in<float, squares.value>(target, order, n); });
  }

  /// Rows with systems of their entries; returns the place where they begin.
  std::int64_t solve_short(const Target& target, const Side& others, const Array<double>& gram) {
    Side& side = target.side;
    const auto longest = static_cast<int>(
        std::min<std::int64_t>(side.longest_dual, DualHalfStep<Device>::longest(device_, shape_.padded())));
    const std::int64_t first = std::max(side.longer_than(longest), side.n_long), n = side.rows - first;
    if (longest == 0 || n == 0) return side.rows;
    const CoordinatesOnDevice<Device> coordinates(device_, shape_, gram);
    if (!coordinates.found) return side.rows;
    const Array<float> features = coordinates.turned(others.table, others.rows, params_.biases);
    Array<float> x(device_, static_cast<std::size_t>(n * shape_.padded()));
    DualHalfStep<Device>(device_,
                         {target.rows, features.data(), shape_.padded(), coordinates.eigenvalues(), coordinates.least,
                          coordinates.least_eigenvalue, side.penalties.data(), side.penalties.size() == 1, x.data()})
        .solve(side, first, longest);
    Array<std::int32_t> left(device_, static_cast<std::size_t>(n)), reasons(device_, left.size()), count(device_, 1);
    count.clear();
    coordinates.store(x, n, side.table, {count.data(), left.data(), reasons.data()}, side.order_there.data() + first);
    solve_by_factors(target, left.data(), count.all()[0]);
    return first;
  }

  /// From where rows are, in the coordinates of the half-step. False where there are none.
  bool move(const Target& target, const Side& others, const Array<double>& gram) {
    const CoordinatesOnDevice<Device> coordinates(device_, shape_, gram);
    if (!coordinates.found) return false;
    Side& side = target.side;
    const int width = shape_.padded();
    const bool one_penalty = side.penalties.size() == 1;
    const Array<float> features = coordinates.turned(others.table, others.rows, params_.biases);
    Array<float> x = coordinates.turned(side.table, side.rows, false);
    if (params_.solver == LinearSolver::kBlock) {
      BlockHalfStep<Device>(device_, limits_,
                            {target.rows, features.data(), shape_.size, width, coordinates.eigenvalues(),
                             side.penalties.data(), one_penalty, x.data(), nullptr})
          .move(side);
    } else {
      const Array<float> squares = gram.size() == 0 ? mean_squares(features, others.rows) : Array<float>();
      CgHalfStep<Device>(
          device_, limits_,
          {target.rows, features.data(), width, coordinates.eigenvalues(), squares.data(), coordinates.least,
           side.penalties.data(), one_penalty, static_cast<int>(params_.cg_steps), x.data()})
          .move(side);
    }
    coordinates.store(x, side.rows, side.table, target.failed);
    return true;
  }

  /// Of the columns of features: a diagonal that is right in scale.
  Array<float> mean_squares(const Array<float>& features, std::int64_t n) {
    const std::int64_t n_runs = SumSquares::runs(n);
    Array<double> sums(device_, static_cast<std::size_t>(n_runs * shape_.padded()));
    Array<float> means(device_, static_cast<std::size_t>(shape_.padded()));
    device_.launch(SumSquares{features.data(), n, shape_.padded(), sums.data()}, n_runs, 1, 0);
    device_.launch(AddSquares{sums.data(), n, n_runs, shape_.padded(), means.data()}, 1, 1, 0);
    return means;
  }

  /// Rows from place `first` on, as many as there is room for; returns where the next begin.
  std::int64_t solve_long(const Target& target, std::int64_t first) {
    const LongRows rows = target.side.long_rows(first, parts_at_once(), limits_.long_row);
    const Array<float> sums = built(target.rows, rows.parts);
    const Array<std::int64_t> bounds(device_, std::span<const std::int64_t>(rows.bounds));
    solve_in<float, 0>(target, target.side.order_there.data() + first, rows.end - first, {sums.data(), bounds.data()});
    return rows.end;
  }

  template <class Real, int kSquares>
  void solve_in(const Target& target, const std::int32_t* order, std::int64_t n, const Summed& summed = {}) {
    if constexpr (std::is_same_v<Real, float>) {
      if (fits<RowMemory<Real, true, kSquares>>()) return launch<Real, true, kSquares>(target, order, n, summed);
    }
    if constexpr (kSquares == 0 || kSquares == 17) launch<Real, false, kSquares>(target, order, n, summed);
  }

  template <class Real, bool kInShared, int kSquares>
  void launch(const Target& target, const std::int32_t* order, std::int64_t n, const Summed& summed) {
    if (n == 0) return;
    // As on the CPU: what a float32 pivot may have lost, and in float64 what rounding leaves of one that should be 0.
    const Real least =
        std::is_same_v<Real, float> ? static_cast<Real>(4e-6F) : static_cast<Real>(4 * shape_.size * 0x1p-52);
    std::int64_t n_blocks = n;
    Array<Real> scratch;
    if (!kInShared) {
      const std::int64_t bytes = shape_.elements() * static_cast<std::int64_t>(sizeof(Real));
      const std::int64_t fit = std::max<std::int64_t>(1, limits_.scratch_bytes / bytes);
      n_blocks = std::min({n, fit, static_cast<std::int64_t>(4 * device_.multiprocessors())});
      scratch = {device_, static_cast<std::size_t>(n_blocks * shape_.elements())};
    }
    n_blocks = std::min<std::int64_t>(n_blocks, 1 << 30);
    const Side& side = target.side;
    using Body = SolveRows<Real, kInShared, kSquares>;
    device_.launch(Body{target.rows, shape_, order, n, static_cast<int>(n_blocks), target.gram, side.penalties.data(),
                        side.penalties.size() == 1, least, summed.parts, summed.bounds, scratch.data(),
                        target.side.table.data(), target.failed},
                   n_blocks, 1, Body::Memory::bytes(shape_));
  }

  /// Of float64, after which nothing is left to try.
  void check_solved(const Side& side, const Array<std::int32_t>& count, const Array<std::int32_t>& rows,
                    const Array<std::int32_t>& reasons) const {
    const std::int32_t n = count.all()[0];
    if (n == 0) return;
    const std::vector<std::int32_t> failed = rows.all(), why = reasons.all();
    const auto first = std::min_element(failed.begin(), failed.begin() + n);
    const bool singular = why[static_cast<std::size_t>(first - failed.begin())] == System<double>::kSmallPivot;
    std::ostringstream message;
    if (singular) {
      message << "als: the system of " << side.noun << ' ' << side.first + *first << " is singular; got regularization "
              << params_.regularization << (params_.regularization == 0 ? ". Raise it above 0." : ". Raise it.");
    } else {
      message << "als: the factors of " << side.noun << ' ' << side.first + *first
              << " must fit in float32; they overflow. Scale the values of user_items down.";
    }
    throw std::domain_error(message.str());
  }

  Device& device_;
  const AlsParams params_;
  const double mean_;
  const AlsLimits limits_;
  const SystemShape shape_;
};

}  // namespace recfuse::cuda
