// One half-step on a device: the least-squares systems of all users, or of all items.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
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

  Failures(Device& device, const AlsSideOnDevice<Device>& side) : Failures(device, side.rows, 1) {}
  /// Of rows that are solved in so many pieces, at most.
  Failures(Device& device, std::int64_t n_rows, std::int64_t n_pieces)
      : counts(device, static_cast<std::size_t>(2 * n_pieces)),
        rows(device, static_cast<std::size_t>(n_rows)),
        last_rows(device, rows.size()),
        reasons(device, rows.size()) {}
  /// Of a piece: rows from place `first` on.
  Failures(Device& device, Failures& all, std::int64_t piece, std::int64_t first, std::int64_t n_rows)
      : counts(device, all.counts.data() + 2 * piece, 2),
        rows(device, all.rows.data() + first, static_cast<std::size_t>(n_rows)),
        last_rows(device, all.last_rows.data() + first, rows.size()),
        reasons(device, all.reasons.data() + first, rows.size()) {}

  UnsolvedRows first() { return {counts.data(), rows.data(), nullptr}; }
  UnsolvedRows last() { return {counts.data() + 1, last_rows.data(), reasons.data()}; }

  Array<std::int32_t> counts, rows, last_rows, reasons;
  bool all_in_float64 = false;
};

/// sum_i y_i y_i' in float64: float32 only within some rows. Empty where the objective has none.
template <class Device>
struct Gram {
  typename Device::template Array<double> sum;
  typename Device::template Array<float> rounded;  // for systems in float32: half of what they read
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

  /// Of the rows of a side.
  Gram<Device> gram(const Side& side) {
    Gram<Device> sum;
    memory_.run([&] { gram(side, sum); });
    return sum;
  }
  /// The same, to memory that stays, as a part of what memory is prepared for.
  void gram(const Side& side, Gram<Device>& gram) {
    if (params_.objective != AlsObjective::kImplicit) return;
    const auto n = static_cast<std::size_t>(shape_.elements());
    if (gram.sum.size() != n) gram = {{device_, n}, {device_, n}};
    add_gram(side, gram.sum.data(), gram.rounded.data());
  }

  /// Solves the rows of `side`; `gram` of the others, or empty. What could not be solved in float32 is solved in
  /// float64, and what could not be then is for finish() to tell; none is solved where `before` knows of such rows.
  /// Nothing is read, so that launches can be recorded.
  void launch(const Side& others, Side& side, const Gram<Device>& gram, Failures<Device>& failures,
              Failures<Device>* before = nullptr) {
    device_.launch(ClearCounts{failures.counts.data()}, 1, 1, 0);
    failures.all_in_float64 = params_.double_precision;
    if (side.rows == 0) return;
    const typename WorkMemory<Device>::Scope scope(memory_);
    const std::int32_t* const stop = before == nullptr ? nullptr : before->last().count;
    const bool none = gram.sum.size() == 0;
    const double* const sum = none ? nullptr : gram.sum.data();
    const float* const rounded = none ? nullptr : gram.rounded.data();
    const Target again{rows_of(side, others), side, sum, rounded, failures.last(), stop};
    const Target target{again.rows, side, sum, rounded, failures.first(), stop};
    if (!failures.all_in_float64) {
      if (params_.solver == LinearSolver::kCg || params_.solver == LinearSolver::kBlock) {
        move(target, others);
      } else {
        solve_exactly(target, others);
      }
    }
    if (failures.all_in_float64) return solve_in<double, 0>(again, {side.order_there.data(), side.rows});
    solve_in<double, 0>(again, {failures.first().rows, side.rows, failures.first().count});
  }

  /// Where rows come in pieces: what all of them share is made once, for each_piece(), which calls launch(). `turned`:
  /// whether is_turned() of one.
  template <class EachPiece>
  void launch_pieces(const Side& others, const Gram<Device>& gram, bool turned, const EachPiece& each_piece) {
    const typename WorkMemory<Device>::Scope scope(memory_);
    const struct Forgets {
      std::optional<Turned>& shared;
      ~Forgets() { shared.reset(); }
    } at_the_end{shared_};
    if (turned) shared_.emplace(turned_by(others, gram.sum.size() == 0 ? nullptr : gram.sum.data()));
    each_piece();
  }
  /// Whether rows of a side are moved, or have systems of their entries.
  bool is_turned(const Side& side) const {
    if (params_.double_precision) return false;
    return params_.solver == LinearSolver::kCg || params_.solver == LinearSolver::kBlock || short_rows(side).second > 0;
  }

  /// Waits. Returns how many rows were solved in float64; throws std::domain_error, which names one that has no
  /// solution.
  std::int64_t finish(const Side& side, const Failures<Device>& failures) {
    const std::vector<std::int32_t> counts = failures.counts.all();
    if (spectrum_) spectrum_->rethrow();
    if (counts[1] > 0) fail(side, counts[1], failures.last_rows.all(), failures.reasons.all());
    // Without coordinates the rows without entries have failed, too.
    const std::int64_t most = side.longer_than(0);
    return failures.all_in_float64 ? most : std::min<std::int64_t>(most, counts[0]);
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
    const double* gram;  // or null
    const float* rounded_gram;
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

  /// What rows share that are moved, or have systems of their entries.
  struct Turned {
    CoordinatesOnDevice<Device> coordinates;
    const float* features;  // the others
    const float* squares;   // of their columns, where nothing else scales the steps; or null
  };
  /// Taken, but where pieces share it.
  Turned turned_by(const Side& others, const double* gram) {
    if (shared_) return *shared_;
    if (gram != nullptr && !spectrum_) spectrum_ = std::make_unique<SpectrumOnHost<Device>>(device_, shape_);
    const CoordinatesOnDevice<Device> coordinates(device_, memory_, shape_, spectrum_.get(), gram);
    const float* const features = coordinates.turned(others.table.data(), others.rows, params_.biases);
    const bool scales = params_.solver == LinearSolver::kCg && gram == nullptr;
    return {coordinates, features, scales ? mean_squares(features, others.rows) : nullptr};
  }

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

  void add_gram(const Side& side, double* sum, float* rounded) {
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
      device_.launch(AddParts{shape_, sums, static_cast<std::int64_t>(parts.size()), first == 0, sum, rounded},
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

  void solve_exactly(const Target& target, const Side& others) {
    const Side& side = target.side;
    for (std::int64_t first = 0; first < side.n_long;) first = solve_long(target, first);
    const std::int64_t end = solve_short(target, others);
    solve_by_factors(target, {side.order_there.data() + side.n_long, end - side.n_long});
  }

  void solve_by_factors(const Target& target, const Order& order) {
    with_squares([&](auto squares) { solve_in<float, squares.value>(target, order); });
  }

  /// How long rows with systems of their entries are at most, and how many there are.
  std::pair<int, std::int64_t> short_rows(const Side& side) const {
    const auto longest = static_cast<int>(
        std::min<std::int64_t>(side.longest_dual, DualHalfStep<Device>::longest(device_, shape_.padded())));
    if (longest == 0) return {0, 0};
    return {longest, side.rows - std::max(side.longer_than(longest), side.n_long)};
  }

  /// Solves them; returns the place where they begin.
  std::int64_t solve_short(const Target& target, const Side& others) {
    Side& side = target.side;
    const auto [longest, n] = short_rows(side);
    if (n == 0) return side.rows;
    const std::int64_t first = side.rows - n;
    const typename WorkMemory<Device>::Scope scope(memory_);
    const auto& [coordinates, features, squares] = turned_by(others, target.gram);
    auto* const x = memory_.template take<float>(static_cast<std::size_t>(n * shape_.padded()));
    DualHalfStep<Device>(device_, {target.rows, features, shape_.padded(), coordinates.eigenvalues(),
                                   coordinates.spectrum(), side.penalties.data(), side.penalties.size() == 1, x})
        .solve(side, first, longest);
    auto* const counts = memory_.template take<std::int32_t>(2);
    auto* const left = memory_.template take<std::int32_t>(static_cast<std::size_t>(n));
    device_.launch(ClearCounts{counts}, 1, 1, 0);
    coordinates.store(x, n, side.table.data(), {counts, left, nullptr}, target.stop, side.order_there.data() + first);
    solve_by_factors(target, {left, n, counts});
    return first;
  }

  /// From where rows are, in the coordinates of the half-step.
  void move(const Target& target, const Side& others) {
    const typename WorkMemory<Device>::Scope scope(memory_);
    const auto& [coordinates, features, squares] = turned_by(others, target.gram);
    Side& side = target.side;
    const int width = shape_.padded();
    const bool one_penalty = side.penalties.size() == 1;
    float* const x = coordinates.turned(side.table.data(), side.rows, false);
    {
      const typename WorkMemory<Device>::Scope of_steps(memory_);
      if (params_.solver == LinearSolver::kBlock) {
        BlockHalfStep<Device>(device_, memory_, limits_,
                              {target.rows, features, shape_.size, width, coordinates.eigenvalues(),
                               side.penalties.data(), one_penalty, x, nullptr})
            .move(side);
      } else {
        CgHalfStep<Device>(device_, memory_, limits_,
                           {target.rows, features, width, coordinates.eigenvalues(), squares, coordinates.spectrum(),
                            side.penalties.data(), one_penalty, static_cast<int>(params_.cg_steps), x})
            .move(side);
      }
    }
    coordinates.store(x, side.rows, side.table.data(), target.failed, target.stop);
  }

  /// Of the columns of features: a diagonal that is right in scale.
  const float* mean_squares(const float* features, std::int64_t n) {
    const std::int64_t n_runs = SumSquares::runs(n);
    auto* const means = memory_.template take<float>(static_cast<std::size_t>(shape_.padded()));
    const typename WorkMemory<Device>::Scope scope(memory_);
    auto* const sums = memory_.template take<double>(static_cast<std::size_t>(n_runs * shape_.padded()));
    device_.launch(SumSquares{features, n, shape_.padded(), sums}, n_runs, 1, 0);
    device_.launch(AddSquares{sums, n, n_runs, shape_.padded(), means}, 1, 1, 0);
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
    // Of rows that only the device counts there are few, as a rule: not a block for each that there might be.
    const bool counted_there = order.n_there != nullptr;
    const std::int64_t at_work = (kInShared || !counted_there ? 4 : 1) * device_.multiprocessors();
    std::int64_t n_blocks = kInShared && !counted_there ? order.n : std::min(order.n, at_work);
    Real* scratch = nullptr;
    if (!kInShared) {
      const std::int64_t bytes = shape_.elements() * static_cast<std::int64_t>(sizeof(Real));
      n_blocks = std::min(n_blocks, std::max<std::int64_t>(1, limits_.scratch_bytes / bytes));
      scratch = memory_.template take<Real>(static_cast<std::size_t>(n_blocks * shape_.elements()));
    }
    n_blocks = std::min<std::int64_t>(n_blocks, 1 << 30);
    const Side& side = target.side;
    const Real* gram;
    if constexpr (std::is_same_v<Real, float>) {
      gram = target.rounded_gram;
    } else {
      gram = target.gram;
    }
    using Body = SolveRows<Real, kInShared, kSquares>;
    device_.launch(
        Body{target.rows, shape_, order.rows, order.n, order.n_there, target.stop, static_cast<int>(n_blocks), gram,
             target.gram, side.penalties.data(), side.penalties.size() == 1, least, summed.parts, summed.bounds,
             scratch, target.side.table.data(), target.failed},
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
  std::unique_ptr<SpectrumOnHost<Device>> spectrum_;  // of all half-steps, where one needs it
  std::optional<Turned> shared_;                      // by pieces
};

}  // namespace recfuse::cuda
