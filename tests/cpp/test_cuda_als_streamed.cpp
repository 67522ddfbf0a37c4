// Interactions that are streamed through an emulated device: the bytes of a fit that has all of them there.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
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
using recfuse::AlsRoom;
using recfuse::LinearSolver;
using recfuse::cuda::AlsLimits;
using recfuse::cuda::Emulator;
using Fit = recfuse::cuda::AlsFit<Emulator>;

constexpr std::int64_t kUsers = 90, kItems = 40;

/// Rows without entries, with all of them, and of any length between.
struct Interactions {
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<float> values;

  Interactions() {
    std::mt19937 random(3);
    for (std::int64_t user = 0; user < kUsers; ++user) {
      const unsigned one_in = user % 11 == 0 ? 1 : user % 11 == 1 ? 1U << 30 : 2 + static_cast<unsigned>(user % 9);
      for (std::int32_t item = 0; item < kItems; ++item) {
        if (random() % one_in != 0) continue;
        indices.push_back(item);
        values.push_back(static_cast<float>(random() % 7) - 1.0F);
      }
      indptr.push_back(static_cast<std::int64_t>(indices.size()));
    }
  }
  recfuse::CsrView view() const { return {indptr.data(), indices.data(), values.data(), kUsers, kItems}; }
  std::int64_t nnz() const { return indptr.back(); }
};

std::int64_t planned_bytes(const Interactions& data, const AlsParams& params, const AlsRoom& room) {
  const recfuse::AlsPlan plan = recfuse::plan_als({kUsers, kItems, data.nnz(), params}, {.multiprocessors = 3}, room);
  return recfuse::peak_bytes(plan.buffers);
}

/// Room for pieces of about so many entries, and no more.
AlsLimits streaming(const Interactions& data, const AlsParams& params, std::int64_t piece_entries) {
  const std::int64_t resident = planned_bytes(data, params, {});
  AlsLimits limits{.long_row = 9, .gram_rows = 11, .parts_bytes = 20'000, .team_row = 8};
  limits.room = {resident + resident / 64 - 1, piece_entries};
  return limits;
}

template <class Solver>
void set_start(Solver& fit, const AlsParams& params) {
  std::vector<float> users(static_cast<std::size_t>(kUsers * params.factors)),
      items(static_cast<std::size_t>(kItems * params.factors));
  std::mt19937 random(7);
  for (auto* values : {&users, &items}) {
    for (float& value : *values) value = static_cast<float>(random() % 1000) / 2000.0F - 0.25F;
  }
  fit.set_factors({.users = {users.data(), kUsers, params.factors}, .items = {items.data(), kItems, params.factors}});
}

struct Model {
  std::vector<float> users, items, user_biases, item_biases;
  std::vector<double> losses;
  std::int64_t float64_rows = 0;
  bool operator==(const Model&) const = default;
};

template <class Solver>
Model model_of(const Solver& fit) {
  const AlsParams& params = fit.params();
  Model model;
  model.users.resize(static_cast<std::size_t>(kUsers * params.factors));
  model.items.resize(static_cast<std::size_t>(kItems * params.factors));
  model.user_biases.resize(params.biases ? kUsers : 0);
  model.item_biases.resize(params.biases ? kItems : 0);
  fit.factors({.users = {model.users.data(), kUsers, params.factors},
               .items = {model.items.data(), kItems, params.factors},
               .user_biases = model.user_biases,
               .item_biases = model.item_biases});
  model.float64_rows = fit.float64_rows();
  return model;
}

template <class Solver>
Model fitted_by(Solver& fit, const AlsParams& params) {
  set_start(fit, params);
  std::vector<double> losses;
  for (int i = 0; i < 2; ++i) {
    fit.step(1);
    losses.push_back(fit.loss(1));
  }
  Model model = model_of(fit);
  model.losses = losses;
  return model;
}

Model fitted(const Interactions& data, const AlsParams& params, const AlsLimits& limits, bool streamed) {
  Emulator device;
  Fit fit(device, data.view(), params, limits, 1);
  CHECK(fit.is_streamed() == streamed);
  return fitted_by(fit, params);
}

void check_pieces(const Interactions& data, const AlsParams& params) {
  const AlsLimits cut = streaming(data, params, 1);
  AlsLimits resident = cut;
  resident.room = {};
  const Model want = fitted(data, params, resident, false);
  for (const std::int64_t entries : {std::int64_t{1}, std::int64_t{150}, data.nnz() / 2}) {
    const AlsLimits limits = streaming(data, params, entries);
    CHECK(fitted(data, params, limits, true) == want);
  }
}

}  // namespace

TEST(streamed_fits_have_the_bytes_of_resident_ones) {
  const Interactions data;
  for (const auto objective : {AlsObjective::kImplicit, AlsObjective::kExplicit}) {
    for (const double scaling : {0.0, 0.5}) {
      for (const auto solver : {LinearSolver::kCholesky, LinearSolver::kCg, LinearSolver::kBlock}) {
        AlsParams params{.objective = objective, .solver = solver, .factors = 6, .regularization = 0.5};
        params.frequency_scaling = scaling;
        params.biases = objective == AlsObjective::kExplicit && scaling > 0;
        check_pieces(data, params);
      }
    }
  }
}

TEST(so_have_those_of_several_devices_some_of_which_stream) {
  const Interactions data;
  for (const auto solver : {LinearSolver::kCholesky, LinearSolver::kCg}) {
    const AlsParams params{.objective = AlsObjective::kExplicit,
                           .solver = solver,
                           .factors = 6,
                           .regularization = 0.5,
                           .frequency_scaling = 0.5,
                           .biases = true};
    const AlsRoom room = streaming(data, params, 60).room;
    AlsLimits limits;  // those of the plan
    const Model want = fitted(data, params, limits, false);
    // A part of the rows fits where all of them do not.
    auto& memory = recfuse::cuda::EmulatedMemory::of(2);
    for (const std::int64_t bytes : {room.device_bytes, room.device_bytes * 2 / 3}) {
      limits.room.piece_entries = room.piece_entries;
      for (const std::vector<int>& devices : {std::vector<int>{2, 2}, {2, 1}, {1, 2, 0}, {0, 2, 2}}) {
        memory.total = memory.used + static_cast<std::size_t>(bytes * std::count(devices.begin(), devices.end(), 2));
        recfuse::cuda::AlsShards<Emulator> several(devices, data.view(), params, limits, 1);
        if (bytes < room.device_bytes) CHECK(several.is_streamed());
        CHECK(fitted_by(several, params) == want);
      }
    }
    memory.total = std::numeric_limits<std::size_t>::max();
  }
}

TEST(so_have_systems_of_entries_blocks_of_unknowns_and_float64) {
  const Interactions data;
  AlsParams params{.solver = LinearSolver::kCholesky, .factors = 20, .regularization = 0.5, .dual_entries = 12};
  check_pieces(data, params);
  params.factors = 70;
  params.solver = LinearSolver::kBlock;
  check_pieces(data, params);
  params.factors = 5;
  params.double_precision = true;
  check_pieces(data, params);
}

TEST(rows_that_float32_does_not_solve_are_counted_over_all_pieces) {
  const Interactions data;
  const AlsParams params{.objective = AlsObjective::kExplicit,
                         .solver = LinearSolver::kCholesky,
                         .factors = 12,
                         .regularization = 1e-9,
                         .dual_entries = 0};
  const AlsLimits limits = streaming(data, params, 100);
  CHECK(fitted(data, params, limits, true).float64_rows > 10);
  check_pieces(data, params);
}

TEST(pieces_are_whole_rows_in_order_and_full) {
  const Interactions data;
  const recfuse::CsrView csr = data.view();
  for (const std::int64_t rows : {1, 7, 1000}) {
    for (const std::int64_t entries : {1, 45, 200, 100'000}) {
      std::int64_t next = 0;
      const auto ranges = recfuse::cuda::cut_rows(csr, rows, entries);
      for (const auto& range : ranges) {
        CHECK(range.first == next && range.last > next);
        next = range.last;
        const std::int64_t n = csr.indptr[range.last] - csr.indptr[range.first];
        CHECK(range.size() == 1 || (range.size() <= rows && n <= entries));
        // One row more would be too many.
        CHECK(next == kUsers || range.size() == rows || csr.indptr[next + 1] - csr.indptr[range.first] > entries);
      }
      CHECK(next == kUsers);
    }
  }
}

TEST(an_error_between_pieces_leaves_no_finished_steps_and_the_fit_usable) {
  const Interactions data;
  const AlsParams params{.solver = LinearSolver::kCg, .factors = 6, .regularization = 0.5};
  const AlsLimits limits = streaming(data, params, 100);
  Emulator device;
  Fit fit(device, data.view(), params, limits, 1);
  set_start(fit, params);
  fit.step(1);
  const Model first = model_of(fit);
  for (std::int64_t launches = 0;; ++launches) {
    set_start(fit, params);
    Emulator::memory.launches_left = launches;
    bool failed = false;
    try {
      fit.step(1);
    } catch (const recfuse::DeviceError&) {
      failed = true;
    }
    Emulator::memory.launches_left = std::numeric_limits<std::int64_t>::max();
    CHECK(fit.finished_steps() == (failed ? 0 : 1));
    if (!failed) {
      CHECK(launches > 20);
      break;
    }
    set_start(fit, params);
    fit.step(1);
    CHECK(model_of(fit) == first);
  }
}

TEST(memory_is_what_the_plan_says_or_an_error_with_both_numbers) {
  const Interactions data;
  const AlsParams params{.solver = LinearSolver::kCg, .factors = 16, .regularization = 0.5};
  const std::size_t before = Emulator::memory.used;
  // In the smallest pieces.
  const std::int64_t least = planned_bytes(data, params, {1, 1});
  AlsLimits limits;
  limits.room = {least + least / 63 + 1, 1};
  Emulator::memory.peak = before;
  fitted(data, params, limits, true);
  CHECK(Emulator::memory.peak - before <= static_cast<std::size_t>(least));
  CHECK(Emulator::memory.used == before);
  limits.room.device_bytes = least - 1;
  std::string message;
  try {
    fitted(data, params, limits, true);
  } catch (const recfuse::DeviceOutOfMemory& error) {
    message = error.what();
  }
  const std::string wanted = "als: " + std::to_string(least) + " bytes asked on cuda:0, " + std::to_string(least - 1);
  CHECK(message.starts_with(wanted));
  CHECK(message.find("fewer factors") != std::string::npos);
  CHECK(Emulator::memory.used == before);
}

namespace {

struct ReadByte {
  static constexpr int kThreads = 1;
  const char* from;
  char* to;
  template <class Block>
  void operator()(Block& block) const {
    block.each_thread([&](int) { *to = *from; });
  }
};

bool is_refused(const std::function<void(Emulator&, Emulator::Feed&, char*, char*, const char*)>& f) {
  Emulator device;
  Emulator::Array<char> place(device, 64), result(device, 1);
  const std::vector<char> host(64, 'x');
  Emulator::Feed feed(device);
  try {
    f(device, feed, place.data(), result.data(), host.data());
  } catch (const recfuse::DeviceError&) {
    return true;
  }
  return false;
}

}  // namespace

TEST(the_emulator_refuses_copies_that_come_too_early_and_kernels_that_do_not_wait) {
  const auto read = [](Emulator& device, const char* from, char* to) { device.launch(ReadByte{from, to}, 1, 1, 0); };
  CHECK(!is_refused([&](Emulator& device, auto& feed, char* place, char* result, const char* host) {
    for (int i = 0; i < 2; ++i) {
      feed.send(0, place, host, 64);
      feed.await(0);
      read(device, place + 63, result);
      feed.free(0);
    }
  }));
  CHECK(is_refused([&](Emulator& device, auto& feed, char* place, char* result, const char* host) {
    feed.send(0, place, host, 64);
    read(device, place + 63, result);  // before it has come
  }));
  CHECK(is_refused([&](Emulator& device, auto& feed, char* place, char* result, const char* host) {
    feed.send(0, place, host, 64);
    feed.await(0);
    feed.free(0);
    read(device, place, result);  // when the next may be on its way
  }));
  CHECK(is_refused([&](Emulator& device, auto& feed, char* place, char* result, const char* host) {
    feed.send(1, place, host, 64);
    feed.await(1);
    read(device, place, result);
    feed.send(1, place, host, 64);  // while that may still run
  }));
}
