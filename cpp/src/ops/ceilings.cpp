#include "recfuse/ceilings.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include "isa/dispatch.hpp"
#include "parallel_for.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSeconds = 0.2;
constexpr int kManyChunks = 1 << 16;  // more than threads: how plan_workers is asked for all of them

std::atomic<float> sink;  // results go here, so that no loop is dead code

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Best of the rates that runs of body(worker_share) reach; each share returns how much work it did.
template <class Body>
double best_rate(int n_shares, const Body& body) {
  double best = 0;
  const auto start = Clock::now();
  do {
    std::atomic<std::int64_t> work{0};
    const auto run_start = Clock::now();
    parallel_for(n_shares, n_shares, [&](std::int64_t share, int) { work += body(share); });
    best = std::max(best, static_cast<double>(work.load()) / seconds_since(run_start));
  } while (seconds_since(start) < kSeconds);
  return best;
}

}  // namespace

double measure_flops(int num_threads) {
  validate_num_threads(num_threads, "measure_flops");
  const auto& table = kernel_table();
  return best_rate(plan_workers(kManyChunks, num_threads), [&](std::int64_t) {
    float sum = 0;
    const std::int64_t operations = table.multiply_add_chains(1 << 20, &sum);
    sink.store(sum, std::memory_order_relaxed);
    return operations;
  });
}

double measure_bandwidth(std::int64_t bytes, int num_threads) {
  validate_num_threads(num_threads, "measure_bandwidth");
  if (bytes < 1) {
    throw std::invalid_argument("measure_bandwidth: bytes must be at least 1; got " + std::to_string(bytes));
  }
  const auto& table = kernel_table();
  const int n_shares = plan_workers(kManyChunks, num_threads);
  constexpr std::int64_t kFloatsPerStep = 128;  // 8 vectors of the widest instruction set
  constexpr std::int64_t kStepBytes = kFloatsPerStep * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t share = (bytes + n_shares * kStepBytes - 1) / (n_shares * kStepBytes) * kFloatsPerStep;
  const std::vector<float> data(static_cast<std::size_t>(share * n_shares), 1.0F);
  // Small arrays are read many times per run: starting the threads must not count.
  const std::int64_t passes = std::max<std::int64_t>(1, (std::int64_t{1} << 26) / (share * n_shares));
  return best_rate(n_shares, [&](std::int64_t i) {
    float sum = 0;
    for (std::int64_t pass = 0; pass < passes; ++pass) sum += table.read_floats(data.data() + i * share, share);
    sink.store(sum, std::memory_order_relaxed);
    return passes * share * static_cast<std::int64_t>(sizeof(float));
  });
}

double measure_updates(int num_threads) {
  validate_num_threads(num_threads, "measure_updates");
  const auto& table = kernel_table();
  constexpr std::int64_t kCounters = 2048;  // 8 KiB, and 8 KiB of indices: both stay in a 32 KiB cache
  std::vector<std::int32_t> at(kCounters);
  // An odd multiplier permutes the indices modulo a power of two: no counter repeats within a pass.
  for (std::int64_t i = 0; i < kCounters; ++i) at[i] = static_cast<std::int32_t>(i * 1103 % kCounters);
  return best_rate(plan_workers(kManyChunks, num_threads), [&](std::int64_t) {
    constexpr std::int64_t kPasses = 8192;
    std::vector<std::uint32_t> counters(kCounters);
    for (std::int64_t pass = 0; pass < kPasses; ++pass) table.count_at(at.data(), kCounters, counters.data());
    sink.store(static_cast<float>(counters[0]), std::memory_order_relaxed);
    return kPasses * kCounters;
  });
}

}  // namespace recfuse
