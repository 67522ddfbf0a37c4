// Alternating least squares of the GPU on its emulator, against the CPU's: the same objective after every epoch.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "als_fit.cuh"
#include "als_shards.cuh"
#include "check.hpp"
#include "emulator.hpp"
#include "recfuse/recfuse.hpp"

namespace {

using recfuse::AlsObjective;
using recfuse::AlsParams;
using recfuse::LinearSolver;
using recfuse::cuda::AlsLimits;
using recfuse::cuda::Emulator;

constexpr std::int64_t kUsers = 70, kItems = 50;

/// Row u has every entry where u is a multiple of 9, and none after it.
struct Interactions {
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<float> values;

  Interactions() {
    std::mt19937 random(20261122);
    for (std::int64_t user = 0; user < kUsers; ++user) {
      const unsigned one_in = user % 9 == 0 ? 1 : user % 9 == 1 ? 1U << 30 : 5;
      for (std::int32_t item = 0; item < kItems; ++item) {
        if (random() % one_in != 0) continue;
        indices.push_back(item);
        values.push_back(static_cast<float>(random() % 7) - 1.0F);
      }
      indptr.push_back(static_cast<std::int64_t>(indices.size()));
    }
  }
  recfuse::CsrView view() const { return {indptr.data(), indices.data(), values.data(), kUsers, kItems}; }
};

struct Epochs {
  std::vector<float> users, items;
  std::vector<double> losses;
};

template <class Solver>
Epochs run(Solver& solver, const AlsParams& params) {
  Epochs epochs{std::vector<float>(static_cast<std::size_t>(kUsers * params.factors)),
                std::vector<float>(static_cast<std::size_t>(kItems * params.factors)),
                {}};
  std::mt19937 random(7);
  for (auto* values : {&epochs.users, &epochs.items}) {
    for (float& value : *values) value = static_cast<float>(random() % 1000) / 2000.0F - 0.25F;
  }
  solver.set_factors(
      {.users = {epochs.users.data(), kUsers, params.factors}, .items = {epochs.items.data(), kItems, params.factors}});
  for (int i = 0; i < 3; ++i) {
    solver.step(1);
    epochs.losses.push_back(solver.loss(1));
  }
  std::vector<float> user_biases(params.biases ? kUsers : 0), item_biases(params.biases ? kItems : 0);
  solver.factors({.users = {epochs.users.data(), kUsers, params.factors},
                  .items = {epochs.items.data(), kItems, params.factors},
                  .user_biases = user_biases,
                  .item_biases = item_biases});
  return epochs;
}

Epochs emulated(const Interactions& interactions, const AlsParams& params, const AlsLimits& limits,
                std::size_t shared) {
  Emulator device;
  device.set_most_shared_bytes(shared);
  recfuse::cuda::AlsFit<Emulator> fit(device, interactions.view(), params, limits, 1);
  return run(fit, params);
}

/// One more, of every element.
struct Increment {
  static constexpr int kThreads = 1;
  std::int32_t* values;
  std::int64_t n;

  void operator()(recfuse::cuda::HostBlock& block) const {
    block.each_thread([&](int) {
      for (std::int64_t i = 0; i < n; ++i) ++values[i];
    });
  }
};

/// An emulator whose Gram matrices have no eigenvectors.
struct WithoutEigenvectors : Emulator {
  std::deque<std::function<void()>> spoilt;  // which recordings call

  template <class In, class Out, class F>
  void call_host(const In* from, HostArray<In>& in, F& f, HostArray<Out>& out, Out* to) {
    spoilt.emplace_back([&] {
      in.data()[0] = std::numeric_limits<In>::quiet_NaN();
      f();
    });
    Emulator::call_host(from, in, spoilt.back(), out, to);
  }
};

bool allocations_fail = false;

/// An emulator on which the host has no memory to find eigenvectors.
struct WithoutHostMemory : WithoutEigenvectors {
  template <class In, class Out, class F>
  void call_host(const In* from, HostArray<In>& in, F& f, HostArray<Out>& out, Out* to) {
    spoilt.emplace_back([&] {
      allocations_fail = true;
      f();
      allocations_fail = false;
    });
    Emulator::call_host(from, in, spoilt.back(), out, to);
  }
};

struct Ways {
  AlsParams params;
  AlsLimits limits;
};

/// Every solver, with rows in one piece and in parts.
std::vector<Ways> all_ways(AlsObjective objective) {
  const AlsLimits small{.long_row = 9, .gram_rows = 11, .parts_bytes = 20'000, .team_row = 8};
  std::vector<Ways> ways;
  for (const auto& limits : {AlsLimits{}, small}) {
    AlsParams params{.objective = objective, .factors = 14, .regularization = 0.5, .dual_entries = 0};
    params.biases = objective == AlsObjective::kExplicit;
    for (const auto solver : {LinearSolver::kCholesky, LinearSolver::kCg, LinearSolver::kBlock}) {
      params.solver = solver;
      ways.push_back({params, limits});
    }
    params.solver = LinearSolver::kCholesky;
    params.dual_entries = 12;
    ways.push_back({params, limits});
  }
  return ways;
}

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (allocations_fail) throw std::bad_alloc();
  if (void* const memory = std::malloc(std::max<std::size_t>(bytes, 1))) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocations_fail ? nullptr : std::malloc(std::max<std::size_t>(bytes, 1));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

TEST(the_host_is_called_in_its_turn_every_time) {
  Emulator device;
  Emulator::Array<std::int32_t> values(device, std::vector<std::int32_t>{1, 2, 3}), doubled(device, 3);
  Emulator::HostArray<std::int32_t> in(device, 3), out(device, 3);
  int calls = 0;
  auto twice = [&] {
    ++calls;
    for (std::size_t i = 0; i < 3; ++i) out.data()[i] = 2 * in.data()[i];
  };
  const auto launch = [&] {
    device.launch(Increment{values.data(), 3}, 1, 1, 0);
    device.call_host(values.data(), in, twice, out, doubled.data());
    device.launch(Increment{doubled.data(), 3}, 1, 1, 0);
  };
  launch();
  CHECK((doubled.all() == std::vector<std::int32_t>{5, 7, 9} && calls == 1));
  Emulator::without_launches(launch);
  const auto recording = device.record(launch);
  CHECK((doubled.all() == std::vector<std::int32_t>{5, 7, 9} && calls == 1));
  recording.replay(device);
  CHECK((doubled.all() == std::vector<std::int32_t>{7, 9, 11} && calls == 2));
  recording.replay(device);
  CHECK((doubled.all() == std::vector<std::int32_t>{9, 11, 13} && calls == 3));
}

TEST(epochs_of_every_solver_are_recorded_once_and_have_the_bytes_of_launches_in_turn) {
  const Interactions interactions;
  auto& memory = recfuse::cuda::EmulatedMemory::of(0);
  for (const auto objective : {AlsObjective::kImplicit, AlsObjective::kExplicit}) {
    for (const auto& [params, limits] : all_ways(objective)) {
      const std::int64_t before = memory.recordings, launched = memory.launches;
      Emulator device;
      recfuse::cuda::AlsFit<Emulator> fit(device, interactions.view(), params, limits, 1);
      fit.step(1);
      const std::int64_t of_first = memory.launches - launched;
      CHECK(memory.recordings == before + 1);
      CHECK(of_first > 0);
      fit.step(1);
      CHECK(memory.recordings == before + 1);
      CHECK(memory.launches - launched == 2 * of_first);
      const Epochs got = run(fit, params);
      CHECK(memory.recordings == before + 1);
      recfuse::cuda::AlsShards<Emulator> in_turn(std::vector<int>{0}, interactions.view(), params, limits, 1);
      const Epochs want = run(in_turn, params);
      CHECK(memory.recordings == before + 1);
      CHECK(got.users == want.users && got.items == want.items && got.losses == want.losses);
      CHECK(fit.float64_rows() == 0 && in_turn.float64_rows() == 0);
    }
  }
}

TEST(rows_without_coordinates_are_solved_exactly) {
  const Interactions interactions;
  std::int64_t solved = 0;
  for (std::size_t user = 0; user < kUsers; ++user) {
    solved += interactions.indptr[user + 1] > interactions.indptr[user] ? 1 : 0;
  }
  solved += std::set<std::int32_t>(interactions.indices.begin(), interactions.indices.end()).size();
  for (auto [params, limits] : all_ways(AlsObjective::kImplicit)) {
    const bool exact = params.solver == LinearSolver::kCholesky;
    if (exact && params.dual_entries == 0) continue;
    WithoutEigenvectors spoilt;
    recfuse::cuda::AlsFit<WithoutEigenvectors> fit(spoilt, interactions.view(), params, limits, 1);
    const Epochs got = run(fit, params);
    CHECK(fit.float64_rows() == (exact ? 0 : 3 * solved));
    params.double_precision = !exact;
    params.dual_entries = 0;
    Emulator device;
    recfuse::cuda::AlsFit<Emulator> in_float64(device, interactions.view(), params, limits, 1);
    const Epochs want = run(in_float64, params);
    CHECK(got.users == want.users && got.items == want.items);
  }
}

TEST(what_fails_on_the_host_within_an_epoch_is_told) {
  const Interactions interactions;
  WithoutHostMemory device;
  const AlsParams params{.solver = LinearSolver::kCg, .factors = 6};
  recfuse::cuda::AlsFit<WithoutHostMemory> fit(device, interactions.view(), params, {}, 1);
  for (int i = 0; i < 2; ++i) {
    bool told = false;
    try {
      fit.step(1);
    } catch (const std::bad_alloc&) {
      told = true;
    }
    CHECK(told);
    CHECK(fit.finished_steps() == 0);
  }
}

TEST(items_stay_as_they_are_where_users_could_not_be_solved) {
  // Of items that are all zeros every system is singular. Steps from anywhere end at once there: nothing is to be
  // gained.
  const Interactions interactions;
  for (auto [params, limits] : all_ways(AlsObjective::kImplicit)) {
    if (params.solver != LinearSolver::kCholesky) continue;
    params.regularization = 0;
    Emulator device;
    recfuse::cuda::AlsFit<Emulator> fit(device, interactions.view(), params, limits, 1);
    std::vector<float> users(static_cast<std::size_t>(kUsers * params.factors)),
        items(static_cast<std::size_t>(kItems * params.factors), 0.0F);
    std::mt19937 random(3);  // so that items could be solved
    for (float& value : users) value = static_cast<float>(random() % 1000) / 1000.0F;
    fit.set_factors({.users = {users.data(), kUsers, params.factors}, .items = {items.data(), kItems, params.factors}});
    CHECK(!recfuse::testing::thrown_message<std::domain_error>([&] { fit.step(1); }).empty());
    fit.factors({.users = {users.data(), kUsers, params.factors}, .items = {items.data(), kItems, params.factors}});
    CHECK(std::all_of(items.begin(), items.end(), [](float value) { return value == 0; }));
  }
}

TEST(objective_is_that_of_the_cpu) {
  const Interactions interactions;
  for (const bool biases : {false, true}) {
    for (const auto objective : {AlsObjective::kImplicit, AlsObjective::kExplicit}) {
      if (biases && objective == AlsObjective::kImplicit) continue;
      for (const std::int64_t factors : {1, 6, 37, 150}) {
        const AlsParams params{.objective = objective,
                               .solver = LinearSolver::kCholesky,
                               .factors = factors,
                               .regularization = 0.5,
                               .biases = biases};
        recfuse::AlsSolver solver(interactions.view(), params, 1);
        const Epochs want = run(solver, params);
        // Rows in one piece; in parts, a few at a time, and matrices beside shared memory.
        const AlsLimits small{.long_row = 9, .gram_rows = 11, .parts_bytes = 20'000, .scratch_bytes = 1};
        const Epochs whole = emulated(interactions, params, {}, 227 << 10);
        const Epochs cut = emulated(interactions, params, small, 227 << 10);
        // For the least, there is no room for the strips of the matrix units, either.
        const Epochs beside = emulated(interactions, params, small, factors == 150 ? 60 << 10 : 10 << 10);
        for (std::size_t i = 0; i < want.losses.size(); ++i) {
          CHECK(std::abs(whole.losses[i] - want.losses[i]) <= 1e-4 * want.losses[i]);
          CHECK(std::abs(cut.losses[i] - want.losses[i]) <= 1e-4 * want.losses[i]);
          CHECK(std::abs(beside.losses[i] - want.losses[i]) <= 1e-4 * want.losses[i]);
        }
        if (factors < 150) continue;
        CHECK(cut.users == beside.users && cut.items == beside.items && cut.losses == beside.losses);
      }
    }
  }
}

TEST(solvers_other_than_the_exact_one_reach_the_objective_of_the_cpu) {
  const Interactions interactions;
  const AlsLimits small{.long_row = 30, .gram_rows = 11, .parts_bytes = 20'000, .team_row = 8};
  for (const auto objective : {AlsObjective::kImplicit, AlsObjective::kExplicit}) {
    for (const std::int64_t factors : {1, 17, 70, 130, 260}) {
      AlsParams params{
          .objective = objective, .factors = factors, .regularization = 0.5, .cg_steps = 5, .dual_entries = 20};
      params.biases = objective == AlsObjective::kExplicit;
      for (const auto solver : {LinearSolver::kCg, LinearSolver::kBlock, LinearSolver::kCholesky}) {
        params.solver = solver;
        recfuse::AlsSolver there(interactions.view(), params, 1);
        const Epochs want = run(there, params);
        const Epochs whole = emulated(interactions, params, {}, 227 << 10);
        const Epochs cut = emulated(interactions, params, small, 227 << 10);
        for (std::size_t i = 0; i < want.losses.size(); ++i) {
          CHECK(std::abs(whole.losses[i] - want.losses[i]) <= 1e-4 * want.losses[i]);
          CHECK(std::abs(cut.losses[i] - want.losses[i]) <= 1e-4 * want.losses[i]);
        }
      }
    }
  }
}

TEST(several_devices_have_the_bytes_of_one) {
  const Interactions interactions;
  const AlsLimits small{.long_row = 9, .gram_rows = 11};
  for (const auto objective : {AlsObjective::kImplicit, AlsObjective::kExplicit}) {
    for (const auto solver : {LinearSolver::kCholesky, LinearSolver::kCg, LinearSolver::kBlock}) {
      const AlsParams params{.objective = objective,
                             .solver = solver,
                             .factors = 6,
                             .regularization = 0.5,
                             .biases = objective == AlsObjective::kExplicit};
      const Epochs want = emulated(interactions, params, small, 227 << 10);
      for (const std::vector<int>& devices : {std::vector<int>{0, 0}, {0, 1, 2}, {3, 1, 0, 2, 4, 5, 6}}) {
        recfuse::cuda::AlsShards<Emulator> several(devices, interactions.view(), params, small, 1);
        const Epochs got = run(several, params);
        CHECK(got.users == want.users && got.items == want.items && got.losses == want.losses);
      }
    }
  }
}

TEST(ranges_of_rows_cover_all_of_them_in_order) {
  const Interactions interactions;
  for (const std::size_t n : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{200}}) {
    std::int64_t next = 0, most = 0;
    for (const auto& range : recfuse::cuda::row_ranges(interactions.view(), 8, n)) {
      CHECK(range.first == next && range.last >= next);
      next = range.last;
      most = std::max(most, interactions.indptr[static_cast<std::size_t>(range.last)] -
                                interactions.indptr[static_cast<std::size_t>(range.first)]);
    }
    CHECK(next == kUsers);
    // No range has more than its share and a row.
    CHECK(most <= static_cast<std::int64_t>((interactions.indices.size() + 3 * kUsers) / n) + 3 + kItems);
  }
}

TEST(memory_ends_with_an_error_and_is_given_back) {
  const Interactions interactions;
  const AlsParams params{.solver = LinearSolver::kCholesky, .factors = 16};
  const std::size_t before = Emulator::memory.used;
  Emulator::memory.total = before + 4'000;
  bool ended = false;
  try {
    emulated(interactions, params, {}, 227 << 10);
  } catch (const recfuse::DeviceOutOfMemory&) {
    ended = true;
  }
  Emulator::memory.total = std::numeric_limits<std::size_t>::max();
  CHECK(ended);
  CHECK(Emulator::memory.used == before);
}
