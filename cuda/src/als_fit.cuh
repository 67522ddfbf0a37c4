// recfuse::AlsSolver on any device: factors stay there from step to step.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "als_choice.cuh"
#include "als_entry_sums.cuh"
#include "als_epoch.cuh"
#include "als_half_step.cuh"
#include "als_loss.cuh"
#include "als_memory.cuh"
#include "als_side.cuh"
#include "als_stream.cuh"
#include "recfuse/als_memory.hpp"
#include "recfuse/als_problem.hpp"
#include "recfuse/errors.hpp"

namespace recfuse::cuda {

/// What the device cannot do yet is said before anything is copied there.
inline void validate_for_device(const AlsParams& params) {
  constexpr std::int64_t kMostFactors = 2048;
  if (params.factors > kMostFactors) {
    throw std::invalid_argument("als: factors must be at most 2048 on cuda; got " + std::to_string(params.factors) +
                                ". device='cpu' takes more.");
  }
}

/// What allocates knows of searches alone: the same of ALS.
inline DeviceOutOfMemory of_als(const DeviceOutOfMemory& error) {
  const std::string text = error.what();
  const std::size_t begin = text.find(':');
  return DeviceOutOfMemory("als" + text.substr(begin));
}

template <class Device>
class AlsShards;

template <class Device>
class AlsFit {
 public:
  AlsFit(Device& device, const CsrView& user_items, const AlsParams& params, const AlsLimits& limits = {},
         int num_threads = 0) try
      : AlsFit(device, checked(user_items, params, num_threads), limits) {
  } catch (const DeviceOutOfMemory& error) {
    throw of_als(error);
  }

  std::int64_t n_users() const { return users_.rows; }
  std::int64_t n_items() const { return items_.rows; }
  const AlsParams& params() const { return params_; }
  double global_mean() const { return mean_; }
  void set_global_mean(double mean) {
    mean_ = mean;
    epoch_.reset();  // whose launches have the former
    streamed_epoch_.reset();
  }
  LinearSolver solver() const { return params_.solver; }
  /// Whether interactions go through the device in pieces.
  bool is_streamed() const { return stream_ != nullptr; }
  std::int64_t float64_rows() const { return float64_rows_; }
  std::int64_t finished_steps() const { return finished_steps_; }

  void set_factors(const AlsFactors<const float>& start) {
    validate(start, params_, n_users(), n_items());
    users_.write(device_, start.users, start.user_biases);
    items_.write(device_, start.items, start.item_biases);
    fold_in_gram_.reset();
    finished_steps_ = 0;
  }

  void factors(const AlsFactors<float>& out) const {
    validate(out, params_, n_users(), n_items());
    users_.read(out.users, out.user_biases);
    items_.read(out.items, out.item_biases);
  }

  void step(int num_threads = 0) {
    validate_als_threads(num_threads);
    fold_in_gram_.reset();
    const std::int64_t finished = std::exchange(finished_steps_, 0);
    told([&] {
      if (stream_) {
        float64_rows_ += streamed_epoch().run();
        return;
      }
      if (!epoch_) epoch_ = std::make_unique<AlsEpoch<Device>>(device_, params_, mean_, limits_, users_, items_);
      float64_rows_ += epoch_->run();
    });
    finished_steps_ = finished + 1;
  }

  double loss(int num_threads = 0) const {
    validate_als_threads(num_threads);
    double loss = 0;
    told([&] { loss = summed_loss(); });
    return loss;
  }

  /// Exact, as on the CPU. Safe beside itself: one at a time.
  void fold_in(const CsrView& user_items, const MatrixView<float>& factors, std::span<float> biases,
               int num_threads = 0) const {
    validate_fold_in(user_items, factors, biases, params_, n_items(), num_threads);
    const std::lock_guard lock(fold_in_mutex_);
    told([&] { fold_in_on(device_, params_, mean_, limits_, items_, fold_in_gram_, user_items, factors, biases); });
  }

 private:
  friend AlsShards<Device>;
  using Side = AlsSideOnDevice<Device>;
  template <class T>
  using Array = typename Device::template Array<T>;

  template <class F>
  static auto told(const F& f) -> decltype(f()) {
    try {
      return f();
    } catch (const DeviceOutOfMemory& error) {
      throw of_als(error);
    }
  }

  double summed_loss() const {
    WorkMemory<Device> memory(device_);
    AlsHalfStep<Device> half(device_, params_, mean_, limits_, memory);
    return loss_beside_entries(device_, half, params_, users_, items_,
                               stream_ ? streamed_entries(half) : resident_entries(half));
  }
  double resident_entries(const AlsHalfStep<Device>& half) const {
    const EntryLoss of_entry{half.rows_of(users_, items_), n_users(), users_.table.data()};
    return sum_of(device_, of_entry, users_.nnz());
  }
  double streamed_entries(const AlsHalfStep<Device>& half) const {
    std::vector<std::int64_t> ends;
    stream_->add_ends(ends);
    SharedRuns runs(ends);
    stream_->sum_entries(half, items_, 0, runs);
    return runs.total();
  }

  AlsStreamedEpoch<Device>& streamed_epoch() {
    if (!streamed_epoch_) {
      streamed_epoch_ =
          std::make_unique<AlsStreamedEpoch<Device>>(device_, params_, mean_, limits_, users_, items_, *stream_);
    }
    return *streamed_epoch_;
  }

  /// Added to the loss of the entries.
  static double loss_beside_entries(Device& device, AlsHalfStep<Device>& half, const AlsParams& params,
                                    const Side& users, const Side& items, double loss) {
    for (const Side* side : {&users, &items}) {
      loss += sum_of(device,
                     RowPenalty{side->table.data(), side->size, side->penalties.data(), side->penalties.size() == 1},
                     side->rows);
    }
    if (params.objective == AlsObjective::kImplicit) loss += all_pairs(half, users, items);
    return loss;
  }

  static void fold_in_on(Device& device, const AlsParams& params, double mean, const AlsLimits& limits,
                         const Side& items, std::optional<Gram<Device>>& gram, const CsrView& user_items,
                         const MatrixView<float>& factors, std::span<float> biases) {
    Side side(device, user_items, als_penalties(user_items, params), items.size, limits, "user");
    AlsParams exact = params;  // as on the CPU
    exact.solver = LinearSolver::kCholesky;
    WorkMemory<Device> memory(device);
    AlsHalfStep<Device> half(device, exact, mean, limits, memory);
    if (!gram) gram = half.gram(items);
    Failures<Device> failures(device, side);
    memory.run([&] { half.launch(items, side, *gram, failures); });
    half.finish(side, failures);
    side.read(factors, biases);
  }

  static AlsProblem checked(const CsrView& user_items, const AlsParams& params, int num_threads) {
    AlsProblem problem(user_items, params, num_threads);
    validate_for_device(params);
    return problem;
  }

  AlsFit(Device& device, const AlsProblem& problem, const AlsLimits& limits)
      : AlsFit(device, problem, solved(problem), limits) {}
  AlsFit(Device& device, const AlsProblem& problem, const AlsParams& params, const AlsLimits& limits)
      : AlsFit(device, problem, params,
               planned(device, sizes_of(problem, params), room_on<Device>(device.index(), limits.room), 0), limits) {}
  AlsFit(Device& device, const AlsProblem& problem, const AlsParams& params, const AlsPlan& plan,
         const AlsLimits& limits)
      : device_(device),
        limits_(limits),
        params_(params),
        mean_(problem.mean),
        users_(side(plan, problem.user_items, problem.user_penalties, "user")),
        items_(side(plan, problem.item_users(), problem.item_penalties, "item")) {
    users_.longest_dual = longest_dual_row(params_, problem.user_items);
    items_.longest_dual = longest_dual_row(params_, problem.item_users());
    if (!plan.streamed) return;
    stream_ = std::make_unique<AlsStream<Device>>(device, plan, problem.user_items, users_, problem.item_users(),
                                                  items_, limits);
  }

  static AlsSizes sizes_of(const AlsProblem& problem, const AlsParams& params) {
    return {problem.user_items.rows, problem.user_items.cols, problem.user_items.nnz(), params};
  }

  Side side(const AlsPlan& plan, const CsrView& csr, std::span<const double> penalties, const char* noun) {
    if (plan.streamed) return {device_, csr.rows, penalties, size_of(params_), noun};
    return {device_, csr, penalties, size_of(params_), limits_, noun};
  }

  /// With the solver that 'auto' stands for.
  static AlsParams solved(const AlsProblem& problem) {
    AlsParams params = problem.params;
    params.solver = chosen_on_device(params, problem.user_items, problem.item_users());
    return params;
  }

  static int size_of(const AlsParams& params) { return static_cast<int>(params.factors) + (params.biases ? 1 : 0); }

  template <class Term>
  static double sum_of(Device& device, const Term& term, std::int64_t n) {
    if (n == 0) return 0;
    using Runs = SumRuns<Term>;
    Array<double> sums(device, static_cast<std::size_t>(Runs::runs(n)));
    device.launch(Runs{term, n, sums.data()}, Runs::runs(n), 1, Runs::kThreads * sizeof(double));
    double total = 0;
    std::vector<double> all(sums.size());
    sums.read(all);
    for (const double sum : all) total += sum;
    return total;
  }

  /// sum_ui (x_u . y_i)^2, from the two Gram matrices.
  static double all_pairs(AlsHalfStep<Device>& half, const Side& users, const Side& items) {
    const std::vector<double> of_users = half.gram(users).sum.all(), of_items = half.gram(items).sum.all();
    const SystemShape shape{users.size};
    double sum = 0;
    for (int r = 0; r < shape.size; ++r) {
      for (int c = 0; c <= r; ++c) {
        const auto at = static_cast<std::size_t>(r * shape.stride() + c);
        sum += (r == c ? 1 : 2) * of_users[at] * of_items[at];
      }
    }
    return sum;
  }

  Device& device_;
  const AlsLimits limits_;
  AlsParams params_;
  double mean_;
  Side users_, items_;
  std::unique_ptr<AlsStream<Device>> stream_;  // null: interactions are resident
  std::unique_ptr<AlsEpoch<Device>> epoch_;
  std::unique_ptr<AlsStreamedEpoch<Device>> streamed_epoch_;
  std::int64_t float64_rows_ = 0, finished_steps_ = 0;
  // Made at the first fold_in and valid until the items change.
  mutable std::optional<Gram<Device>> fold_in_gram_;
  mutable std::mutex fold_in_mutex_;
};

}  // namespace recfuse::cuda
