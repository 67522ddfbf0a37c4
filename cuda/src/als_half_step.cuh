// One half-step on a device: the least-squares systems of all users, or of all items.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <sstream>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "als_block_step.cuh"
#include "als_cg_step.cuh"
#include "als_coordinates.cuh"
#include "als_dual_step.cuh"
#include "als_memory.cuh"
#include "als_rows.cuh"
#include "als_side.cuh"

namespace recfuse::cuda {

/// Rows of a half-step that float32 could not solve, and those of them that float64 could not.
template <class Device>
struct Failures {
  template <class T>
  using Array = typename Device::template Array<T>;

  Failures(Device& device, const AlsSideOnDevice<Device>& side)
      : counts(device, 2),
        rows(device, side.order.size()),
        last_rows(device, side.order.size()),
        reasons(device, side.order.size()) {}

  UnsolvedRows first() { return {counts.data(), rows.data(), nullptr}; }
  UnsolvedRows last() { return {counts.data() + 1, last_rows.data(), reasons.data()}; }

  Array<std::int32_t> counts, rows, last_rows, reasons;
  bool all_in_float64 = false;
};

/// Device: Gpu, or Emulator.
template <class Device>
class AlsHalfStep {
 public:
  template <class T>
  using Array = typename Device::template Array<T>;
  using Side = AlsSideOnDevice<Device>;

  AlsHalfStep(Device& device, const AlsParams& params, double mean, const AlsLimits& limits, WorkMemory<Device>& memory)
      : device_(device),
        memory_(memory),
        params_(params),
        mean_(mean),
        limits_(limits),
        shape_{static_cast<int>(params.factors) + (params.biases ? 1 : 0)} {}

  /// sum_i y_i y_i' in float64: float32 only within some rows. Empty where the objective has none.
  Array<double> gram(const Side& side) {
    Array<double> sum;
    gram(side, sum);
    return sum;
  }
  /// The same, to memory that stays.
  void gram(const Side& side, Array<double>& sum) {
    if (params_.objective != AlsObjective::kImplicit) return;
    const auto n = static_cast<std::size_t>(shape_.elements());
    if (sum.size() != n) sum = {device_, n};
    add_gram(side, sum.data());
  }

  /// Whether nothing of launch() waits for the device, after the first time.
  bool is_recorded(const Side& side) const {
    return params_.double_precision || (params_.solver == LinearSolver::kCholesky && short_rows(side).second == 0);
  }

  /// Solves the rows of `side`; `gram` of the others, or empty. What could not be solved in float32 is solved in
  /// float64, and what could not be then is for finish() to tell; none is solved where `before` knows of such rows.
  void launch(const Side& others, Side& side, const Array<double>& gram, Failures<Device>& failures,
              Failures<Device>* before = nullptr) {
    device_.launch(ClearCounts{failures.counts.data()}, 1, 1, 0);
    failures.all_in_float64 = params_.double_precision;
    if (side.rows == 0) return;
    const typename WorkMemory<Device>::Scope scope(memory_);
    const std::int32_t* const stop = before == nullptr ? nullptr : before->last().count;
    const double* const shared = gram.size() == 0 ? nullptr : gram.data();
    const Target again{rows_of(side, others), side, shared, failures.last(), stop};
    const Target target{again.rows, side, shared, failures.first(), stop};
    if (!failures.all_in_float64) {
      if (params_.solver == LinearSolver::kCg || params_.solver == LinearSolver::kBlock) {
        failures.all_in_float64 = !move(target, others, gram);
      } else {
        solve_exactly(target, others, gram);
      }
    }
    if (failures.all_in_float64) return solve_in<double, 0>(again, {side.order_there.data(), side.rows});
    // Few, as a rule: as many blocks as may be at work.
    solve_in<double, 0>(again, {failures.first().rows, side.rows, failures.first().count});
  }

  /// Waits. Returns how many rows were solved in float64; throws std::domain_error, which names one that has no
  /// solution.
  std::int64_t finish(const Side& side, const Failures<Device>& failures) const {
    const std::vector<std::int32_t> counts = failures.counts.all();
    if (counts[1] > 0) fail(side, counts[1], failures.last_rows.all(), failures.reasons.all());
    return failures.all_in_float64 ? side.longer_than(0) : counts[0];
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
    const std::int32_t* stop;  // above 0: nothing is solved
  };
  struct Order {
    const std::int32_t* rows;
    std::int64_t n;
    const std::int32_t* n_there = nullptr;  // on the device: of `n` so many, at most
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

  void add_gram(const Side& side, double* sum) {
    RowsOnDevice rows = rows_of(side, side);
    rows.ids = nullptr;
    const std::int64_t n_parts = (side.rows + limits_.gram_rows - 1) / limits_.gram_rows;
    std::int64_t first = 0;
    do {  // without rows, too: the sum is 0
      const typename WorkMemory<Device>::Scope scope(memory_);
      std::vector<Part> parts;
      for (std::int64_t part = first; part < std::min(n_parts, first + parts_at_once()); ++part) {
        parts.push_back({part * limits_.gram_rows, std::min(side.rows, (part + 1) * limits_.gram_rows)});
      }
      const float* const sums = built(rows, parts);
      const int n_elements = lower_tiles(shape_.tiles()) * kTile * kTile;
      device_.launch(AddParts{shape_, sums, static_cast<std::int64_t>(parts.size()), first == 0, sum},
                     (n_elements + AddParts::kThreads - 1) / AddParts::kThreads, 1, 0);
      first += parts_at_once();
    } while (first < n_parts);
  }

  const float* built(const RowsOnDevice& rows, const std::vector<Part>& parts) {
    const Part* const there = memory_.constant(std::span<const Part>(parts));
    float* const sums = memory_.template take<float>(parts.size() * static_cast<std::size_t>(shape_.elements()));
    const auto n = static_cast<std::int64_t>(parts.size());
    const auto launch_in = [&](auto body) { device_.launch(body, n, 1, decltype(body)::Memory::bytes(shape_)); };
    const auto launch = [&](auto squares) {
      if constexpr (squares.value > 0) {
        device_.launch(MultiplyParts<squares.value>{rows, shape_, there, sums}, n, 1, StripShape{shape_}.bytes());
      } else if (fits<RowMemory<float, true, 0>>()) {
        launch_in(BuildParts<true>{rows, shape_, there, sums});
      } else {
        launch_in(BuildParts<false>{rows, shape_, there, sums});
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

  void solve_exactly(const Target& target, const Side& others, const Array<double>& gram) {
    const Side& side = target.side;
    for (std::int64_t first = 0; first < side.n_long;) first = solve_long(target, first);
    const std::int64_t end = solve_short(target, others, gram);
    solve_by_factors(target, side.order_there.data() + side.n_long, end - side.n_long);
  }

  void solve_by_factors(const Target& target, const std::int32_t* order, std::int64_t n) {
    with_squares([&](auto squares) { solve_in<float, squares.value>(target, {order, n}); });
  }

  /// How long rows with systems of their entries are at most, and how many there are.
  std::pair<int, std::int64_t> short_rows(const Side& side) const {
    const auto longest = static_cast<int>(
        std::min<std::int64_t>(side.longest_dual, DualHalfStep<Device>::longest(device_, shape_.padded())));
    if (longest == 0) return {0, 0};
    return {longest, side.rows - std::max(side.longer_than(longest), side.n_long)};
  }

  /// Solves them; returns the place where they begin.
  std::int64_t solve_short(const Target& target, const Side& others, const Array<double>& gram) {
    Side& side = target.side;
    const auto [longest, n] = short_rows(side);
    if (n == 0) return side.rows;
    const std::int64_t first = side.rows - n;
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
    const typename WorkMemory<Device>::Scope scope(memory_);
    const float* const sums = built(target.rows, rows.parts);
    solve_in<float, 0>(target, {target.side.order_there.data() + first, rows.end - first},
                       {sums, memory_.constant(std::span<const std::int64_t>(rows.bounds))});
    return rows.end;
  }

  template <class Real, int kSquares>
  void solve_in(const Target& target, const Order& order, const Summed& summed = {}) {
    if (order.n == 0) return;
    if constexpr (std::is_same_v<Real, float>) {
      if (fits<RowMemory<Real, true, kSquares>>()) return solve_at<Real, true, kSquares>(target, order, summed);
    }
    if constexpr (kSquares == 0 || kSquares == 17) solve_at<Real, false, kSquares>(target, order, summed);
  }

  template <class Real, bool kInShared, int kSquares>
  void solve_at(const Target& target, const Order& order, const Summed& summed) {
    // As on the CPU: what a float32 pivot may have lost, and in float64 what rounding leaves of one that should be 0.
    const Real least =
        std::is_same_v<Real, float> ? static_cast<Real>(4e-6F) : static_cast<Real>(4 * shape_.size * 0x1p-52);
    const typename WorkMemory<Device>::Scope scope(memory_);
    std::int64_t n_blocks = order.n;
    Real* scratch = nullptr;
    if (!kInShared) {
      const std::int64_t bytes = shape_.elements() * static_cast<std::int64_t>(sizeof(Real));
      const std::int64_t fit = std::max<std::int64_t>(1, limits_.scratch_bytes / bytes);
      const int most = (order.n_there == nullptr ? 4 : 1) * device_.multiprocessors();
      n_blocks = std::min({order.n, fit, static_cast<std::int64_t>(most)});
      scratch = memory_.template take<Real>(static_cast<std::size_t>(n_blocks * shape_.elements()));
    }
    n_blocks = std::min<std::int64_t>(n_blocks, 1 << 30);
    const Side& side = target.side;
    using Body = SolveRows<Real, kInShared, kSquares>;
    device_.launch(Body{target.rows, shape_, order.rows, order.n, order.n_there, target.stop,
                        static_cast<int>(n_blocks), target.gram, side.penalties.data(), side.penalties.size() == 1,
                        least, summed.parts, summed.bounds, scratch, target.side.table.data(), target.failed},
                   n_blocks, 1, Body::Memory::bytes(shape_));
  }

  /// Of float64, after which nothing is left to try.
  [[noreturn]] void fail(const Side& side, std::int32_t n, const std::vector<std::int32_t>& failed,
                         const std::vector<std::int32_t>& why) const {
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
  WorkMemory<Device>& memory_;
  const AlsParams params_;
  const double mean_;
  const AlsLimits limits_;
  const SystemShape shape_;
};

}  // namespace recfuse::cuda
