// recfuse::AlsSolver over several devices: each solves a range of the users and of the items, and gets the factors that
// the others have found. A row's system is the same wherever it is solved, so the factors have the bytes of one device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "als_entry_sums.cuh"
#include "als_fit.cuh"
#include "als_ranges.cuh"
#include "parallel_devices.cuh"
#include "recfuse/als_problem.hpp"

namespace recfuse::cuda {

template <class Device>
class AlsShards {
 public:
  AlsShards(std::span<const int> devices, const CsrView& user_items, const AlsParams& params,
            const AlsLimits& limits = {}, int num_threads = 0)
      : AlsShards(devices, AlsFit<Device>::checked(user_items, params, num_threads), limits) {}

  std::int64_t n_users() const { return n_users_; }
  std::int64_t n_items() const { return n_items_; }
  const AlsParams& params() const { return params_; }
  double global_mean() const { return mean_; }
  void set_global_mean(double mean) {
    mean_ = mean;
    on_each([](Shard& shard) { shard.work.reset(); });  // which has the former
  }
  LinearSolver solver() const { return params_.solver; }
  std::int64_t float64_rows() const { return float64_rows_; }
  std::int64_t finished_steps() const { return finished_steps_; }
  /// On some of the devices, at least.
  bool is_streamed() const {
    return std::any_of(shards_.begin(), shards_.end(), [](const auto& shard) { return shard->stream != nullptr; });
  }

  void set_factors(const AlsFactors<const float>& start) {
    validate(start, params_, n_users(), n_items());
    on_each([&](Shard& shard) {
      shard.users.write(shard.device, start.users, start.user_biases);
      shard.items.write(shard.device, start.items, start.item_biases);
    });
    fold_in_gram_.reset();
    finished_steps_ = 0;
  }

  void factors(const AlsFactors<float>& out) const {
    validate(out, params_, n_users(), n_items());
    lead().run([&](Shard& shard) {
      shard.users.all->read(out.users, out.user_biases);
      shard.items.all->read(out.items, out.item_biases);
    });
  }

  void step(int num_threads = 0) {
    validate_als_threads(num_threads);
    fold_in_gram_.reset();
    const std::int64_t finished = std::exchange(finished_steps_, 0);
    solve(&Shard::items, &Shard::users);
    solve(&Shard::users, &Shard::items);
    finished_steps_ = finished + 1;
  }

  /// In the order of one device.
  double loss(int num_threads = 0) const {
    validate_als_threads(num_threads);
    std::vector<std::int64_t> ends, firsts;
    for (const auto& shard : shards_) {
      firsts.push_back(ends.empty() ? 0 : ends.back());
      if (shard->stream) {
        shard->stream->add_ends(ends);
      } else {
        ends.push_back(firsts.back() + shard->users.own->nnz());
      }
    }
    if (ends.empty()) ends.push_back(0);
    SharedRuns runs(ends);
    in_parallel(shards_.size(), [&](std::size_t s) {
      shards_[s]->run([&](Shard& shard) {
        WorkMemory<Device> memory(shard.device);
        const AlsHalfStep<Device> half(shard.device, params_, mean_, limits_, memory);
        const OnDevice &users = *shard.users.own, &items = *shard.items.all;
        if (shard.stream) {
          shard.stream->sum_entries(half, items, firsts[s], runs);
        } else {
          sum_entries(shard.device, half, users, items, firsts[s], firsts[s] + users.nnz(), runs);
        }
      });
    });
    return lead().run([&](Shard& shard) {
      WorkMemory<Device> memory(shard.device);
      AlsHalfStep<Device> half(shard.device, params_, mean_, limits_, memory);
      return AlsFit<Device>::loss_beside_entries(shard.device, half, params_, *shard.users.all, *shard.items.all,
                                                 runs.total());
    });
  }

  /// On the first device. Safe beside itself: one at a time.
  void fold_in(const CsrView& user_items, const MatrixView<float>& factors, std::span<float> biases,
               int num_threads = 0) const {
    validate_fold_in(user_items, factors, biases, params_, n_items(), num_threads);
    const std::lock_guard lock(fold_in_mutex_);
    lead().run([&](Shard& shard) {
      AlsFit<Device>::fold_in_on(shard.device, params_, mean_, limits_, *shard.items.all, fold_in_gram_, user_items,
                                 factors, biases);
    });
  }

 private:
  using OnDevice = AlsSideOnDevice<Device>;
  template <class T>
  using Array = typename Device::template Array<T>;

  /// Users or items: the factors of all, and the interactions and factors of those that are solved here.
  struct Side {
    void make(Device& device, const CsrView& csr, std::span<const double> penalties, int unknowns,
              const AlsLimits& limits, const char* noun, const RowRange& here, bool streamed) {
      range = here;
      const std::span of_rows = penalties.size() == 1 ? penalties
                                                      : penalties.subspan(static_cast<std::size_t>(range.first),
                                                                          static_cast<std::size_t>(range.size()));
      if (streamed) {
        own.emplace(device, range.size(), of_rows, unknowns, noun, range.first);
      } else {
        own.emplace(device, rows_of(csr, range), of_rows, unknowns, limits, noun, range.first);
      }
      all.emplace(device, csr.rows, penalties, unknowns, noun);
    }
    void write(Device& device, const MatrixView<const float>& factors, std::span<const float> biases) {
      all->write(device, factors, biases);
      MatrixView<const float> rows = factors;
      rows.data = factors.row(range.first);
      rows.rows = range.size();
      own->write(device, rows,
                 biases.empty()
                     ? biases
                     : biases.subspan(static_cast<std::size_t>(range.first), static_cast<std::size_t>(range.size())));
    }

    RowRange range;
    std::optional<OnDevice> own, all;
  };

  /// What the half-steps of a device share. They are not recorded: between two of them devices wait for one another
  /// anyway, and eigenvectors within recordings the driver may have found for one device after the other.
  struct Work {
    Work(Device& device, const AlsParams& params, double mean, const AlsLimits& limits)
        : memory(device), half(device, params, mean, limits, memory) {}

    WorkMemory<Device> memory;
    AlsHalfStep<Device> half;
    Gram<Device> gram;
  };

  struct Shard {
    explicit Shard(int which) : index(which), device(which) {}

    template <class F>
    auto run(const F& f) {
      return named_by_device(index, [&] {
        [[maybe_unused]] const auto here = device.enter();
        return AlsFit<Device>::told([&] { return f(*this); });
      });
    }

    int index;
    Device device;
    Side users, items;
    std::unique_ptr<AlsStream<Device>> stream;  // of its rows; null: their interactions are resident
    std::optional<Work> work;
  };

  AlsShards(std::span<const int> devices, const AlsProblem& problem, const AlsLimits& limits)
      : limits_(limits), params_(AlsFit<Device>::solved(problem)), mean_(problem.mean) {
    const CsrView item_users = problem.item_users();
    const int unknowns = AlsFit<Device>::size_of(params_);
    n_users_ = problem.user_items.rows;
    n_items_ = item_users.rows;
    for (const int device : devices) {
      named_by_device(device, [&] {
        [[maybe_unused]] const auto here = Device::enter(device);
        shards_.push_back(std::make_unique<Shard>(device));
      });
    }
    Device::connect(devices);
    const auto of_users = row_ranges(problem.user_items, unknowns, devices.size());
    const auto of_items = row_ranges(item_users, unknowns, devices.size());
    std::vector<AlsRoom> rooms;
    for (const int device : devices) {
      named_by_device(device, [&] {
        rooms.push_back(room_on<Device>(device, limits_.room, std::count(devices.begin(), devices.end(), device)));
      });
    }
    in_parallel(shards_.size(), [&](std::size_t s) {
      shards_[s]->run([&](Shard& shard) {
        const CsrView users = rows_of(problem.user_items, of_users[s]), items = rows_of(item_users, of_items[s]);
        // As if of all rows it had its entries alone, and its own rows once more.
        const std::int64_t own_rows = users.rows + items.rows;
        const AlsPlan plan = planned(shard.device, {n_users_, n_items_, std::max(users.nnz(), items.nnz()), params_},
                                     rooms[s], (4 * unknowns + 8) * own_rows);
        shard.users.make(shard.device, problem.user_items, problem.user_penalties, unknowns, limits_, "user",
                         of_users[s], plan.streamed);
        shard.users.own->longest_dual = longest_dual_row(params_, problem.user_items);
        shard.items.make(shard.device, item_users, problem.item_penalties, unknowns, limits_, "item", of_items[s],
                         plan.streamed);
        shard.items.own->longest_dual = longest_dual_row(params_, item_users);
        if (!plan.streamed) return;
        shard.stream = std::make_unique<AlsStream<Device>>(shard.device, plan, users, *shard.users.own, items,
                                                           *shard.items.own, limits_);
      });
    });
  }

  Shard& lead() const { return *shards_[0]; }

  template <class F>
  void on_each(const F& f) const {
    in_parallel(shards_.size(), [&](std::size_t s) { shards_[s]->run(f); });
  }

  /// Every device makes the Gram matrix of all others itself: it is a hundredth of the work, and needs no exchange.
  void solve(Side Shard::* others, Side Shard::* side) {
    std::vector<std::int64_t> in_float64(shards_.size());
    in_parallel(shards_.size(), [&](std::size_t s) {
      shards_[s]->run([&](Shard& shard) {
        if (!shard.work) shard.work.emplace(shard.device, params_, mean_, limits_);
        Work& work = *shard.work;
        const OnDevice& all = *(shard.*others).all;
        OnDevice& own = *(shard.*side).own;
        if (shard.stream) {
          in_float64[s] = solve_streamed(work, all, own, side == &Shard::users, shard);
          return;
        }
        Failures<Device> failures(shard.device, own);
        work.memory.run([&] {
          work.half.gram(all, work.gram);
          work.half.launch(all, own, work.gram, failures);
        });
        in_float64[s] = work.half.finish(own, failures);  // waits: others read the factors next
      });
    });
    on_each([&](Shard& shard) {
      OnDevice& all = *(shard.*side).all;
      for (const auto& from : shards_) {
        const Side& part = (*from).*side;
        const auto size = static_cast<std::size_t>(all.size);
        all.table.copy_of_peer(static_cast<std::size_t>(part.range.first) * size, part.own->table.data(),
                               static_cast<std::size_t>(part.range.size()) * size);
      }
      shard.device.wait();
    });
    float64_rows_ = std::accumulate(in_float64.begin(), in_float64.end(), float64_rows_);
  }

  static std::int64_t solve_streamed(Work& work, const OnDevice& others, const OnDevice& own, bool of_users,
                                     Shard& shard) {
    AlsStream<Device>& stream = *shard.stream;
    auto& pieces = of_users ? stream.users() : stream.items();
    typename AlsStream<Device>::OfPieces failures(shard.device, own, pieces);
    stream.start(pieces);
    work.memory.run([&] {
      work.half.gram(others, work.gram);
      stream.launch(work.half, others, pieces, work.gram, failures);
    });
    return stream.finish(work.half, pieces, failures);
  }

  const AlsLimits limits_;
  AlsParams params_;
  double mean_;
  std::int64_t n_users_ = 0, n_items_ = 0, float64_rows_ = 0, finished_steps_ = 0;
  std::vector<std::unique_ptr<Shard>> shards_;
  mutable std::optional<Gram<Device>> fold_in_gram_;  // on the first device
  mutable std::mutex fold_in_mutex_;
};

}  // namespace recfuse::cuda
