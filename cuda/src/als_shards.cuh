// recfuse::AlsSolver over several devices: each solves a range of the users and of the items, and gets the factors that
// the others have found. A row's system is the same wherever it is solved, so the factors have the bytes of one device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "als_fit.cuh"
#include "parallel_devices.cuh"
#include "recfuse/als_problem.hpp"

namespace recfuse::cuda {

/// Some of the users, or of the items: [first, last).
struct RowRange {
  std::int64_t first = 0, last = 0;
  std::int64_t size() const { return last - first; }
};

/// Ranges of about equal work: a row takes its entries, and some more for its own system.
inline std::vector<RowRange> row_ranges(const CsrView& csr, std::int64_t unknowns, std::size_t n) {
  const std::int64_t per_row = 1 + unknowns / 4, all = csr.nnz() + csr.rows * per_row;
  std::vector<RowRange> ranges;
  std::int64_t row = 0;
  for (std::size_t i = 1; i <= n; ++i) {
    const std::int64_t first = row, share = all * static_cast<std::int64_t>(i) / static_cast<std::int64_t>(n);
    while (row < csr.rows && csr.indptr[row] - csr.indptr[0] + row * per_row < share) ++row;
    ranges.push_back({first, i == n ? csr.rows : row});
  }
  return ranges;
}

inline CsrView rows_of(const CsrView& csr, const RowRange& range) {
  return {csr.indptr + range.first, csr.indices, csr.values, range.size(), csr.cols};
}

/// Runs of terms that devices have some of each, and the sums of all others.
class SharedRuns {
 public:
  static constexpr std::int64_t kRun = SumRuns<RowPenalty>::kRun;

  /// `ends`: of the devices' terms, one device's after the other's.
  explicit SharedRuns(std::span<const std::int64_t> ends)
      : n_(ends.back()), sums_(static_cast<std::size_t>(SumRuns<RowPenalty>::runs(n_))) {
    for (const std::int64_t end : ends) {
      if (end % kRun == 0 || end == n_) continue;
      const std::int64_t run = end / kRun;
      terms_[run].resize(static_cast<std::size_t>(std::min(n_, (run + 1) * kRun) - run * kRun));
    }
  }
  bool is_shared(std::int64_t run) const { return terms_.contains(run); }
  std::int64_t end_of(std::int64_t run) const { return std::min(n_, (run + 1) * kRun); }
  std::span<double> sums(std::int64_t first, std::int64_t last) {
    return std::span(sums_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
  }
  /// Of one run.
  std::span<double> terms(std::int64_t first, std::int64_t last) {
    return std::span(terms_.at(first / kRun))
        .subspan(static_cast<std::size_t>(first % kRun), static_cast<std::size_t>(last - first));
  }
  double total() {
    for (const auto& [run, terms] : terms_) {
      sums_[static_cast<std::size_t>(run)] = SumRuns<RowPenalty>::sum_of(terms);
    }
    return std::accumulate(sums_.begin(), sums_.end(), 0.0);
  }

 private:
  std::int64_t n_;
  std::vector<double> sums_;
  std::map<std::int64_t, std::vector<double>> terms_;  // by run; elements are written by several threads
};

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
    std::vector<std::int64_t> ends;
    for (const auto& shard : shards_) {
      ends.push_back((ends.empty() ? 0 : ends.back()) + shard->users.own->nnz());
    }
    SharedRuns runs(ends);
    in_parallel(shards_.size(), [&](std::size_t s) {
      shards_[s]->run([&](Shard& shard) { sum_entries(shard, ends[s] - shard.users.own->nnz(), ends[s], runs); });
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
              const AlsLimits& limits, const char* noun, const RowRange& here) {
      range = here;
      const std::span of_rows = penalties.size() == 1 ? penalties
                                                      : penalties.subspan(static_cast<std::size_t>(range.first),
                                                                          static_cast<std::size_t>(range.size()));
      own.emplace(device, rows_of(csr, range), of_rows, unknowns, limits, noun, range.first);
      const std::vector<std::int64_t> none(static_cast<std::size_t>(csr.rows + 1), 0);
      all.emplace(device, CsrView{none.data(), csr.indices, csr.values, csr.rows, csr.cols}, penalties, unknowns,
                  limits, noun);
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
    in_parallel(shards_.size(), [&](std::size_t s) {
      shards_[s]->run([&](Shard& shard) {
        shard.users.make(shard.device, problem.user_items, problem.user_penalties, unknowns, limits_, "user",
                         of_users[s]);
        shard.users.own->longest_dual = longest_dual_row(params_, problem.user_items);
        shard.items.make(shard.device, item_users, problem.item_penalties, unknowns, limits_, "item", of_items[s]);
        shard.items.own->longest_dual = longest_dual_row(params_, item_users);
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

  /// Of the entries [first, last) of all, which are those of the shard's users: sums of whole runs, and the terms of
  /// those that others share.
  void sum_entries(Shard& shard, std::int64_t first, std::int64_t last, SharedRuns& runs) const {
    WorkMemory<Device> memory(shard.device);
    AlsHalfStep<Device> half(shard.device, params_, mean_, limits_, memory);
    const OnDevice& users = *shard.users.own;
    using Terms = From<EntryLoss>;
    const std::int64_t begin = first;
    const EntryLoss of_entry{half.rows_of(users, *shard.items.all), users.rows, users.table.data()};
    while (first < last) {
      const std::int64_t run = first / SharedRuns::kRun;
      if (runs.is_shared(run)) {
        const std::int64_t end = std::min(last, runs.end_of(run));
        const auto to = runs.terms(first, end);
        Array<double> terms(shard.device, to.size());
        shard.device.launch(WriteTerms<Terms>{{of_entry, first - begin}, end - first, terms.data()},
                            (end - first + WriteTerms<Terms>::kThreads - 1) / WriteTerms<Terms>::kThreads, 1, 0);
        terms.read(to);
        first = end;
        continue;
      }
      std::int64_t end_run = run;
      while (end_run * SharedRuns::kRun < last && !runs.is_shared(end_run)) ++end_run;
      const std::int64_t end = std::min(last, runs.end_of(end_run - 1));
      Array<double> sums(shard.device, static_cast<std::size_t>(end_run - run));
      shard.device.launch(SumRuns<Terms>{{of_entry, first - begin}, end - first, sums.data()}, end_run - run, 1,
                          SumRuns<Terms>::kThreads * sizeof(double));
      sums.read(runs.sums(run, end_run));
      first = end;
    }
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
