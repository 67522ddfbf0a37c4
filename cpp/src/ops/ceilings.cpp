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
// A run is a few milliseconds in chunks of a fraction of one: a thread that wakes late still gets its part.
constexpr int kChunksPerThread = 16;

std::atomic<float> sink;  // results go here, so that no loop is dead code

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Best of the rates that runs reach; body(chunk, run) returns how much work it did.
template <class Body>
double best_rate(std::int64_t n_chunks, int num_threads, const Body& body) {
  double best = 0;
  const auto start = Clock::now();
  for (int run = 0; run == 0 || seconds_since(start) < kSeconds; ++run) {
    std::atomic<std::int64_t> work{0};
    const auto run_start = Clock::now();
    parallel_for(n_chunks, num_threads, [&](std::int64_t chunk, int) { work += body(chunk, run); });
    best = std::max(best, static_cast<double>(work.load()) / seconds_since(run_start));
  }
  return best;
}

/// Chunks for all the threads that num_threads stands for.
std::int64_t chunks_for(int num_threads) {
  constexpr std::int64_t kMany = std::int64_t{1} << 20;
  return std::int64_t{kChunksPerThread} * plan_workers(kMany, num_threads);
}

double rate_of_chains(std::int64_t (*chains)(std::int64_t, float*), int num_threads) {
  return best_rate(chunks_for(num_threads), num_threads, [&](std::int64_t, int) {
    float sum = 0;
    const std::int64_t operations = chains(1 << 16, &sum);
    sink.store(sum, std::memory_order_relaxed);
    return operations;
  });
}

}  // namespace

double measure_flops(int num_threads) {
  validate_num_threads(num_threads, "measure_flops");
  return rate_of_chains(kernel_table().multiply_add_chains, num_threads);
}

double measure_int8_operations(int num_threads) {
  validate_num_threads(num_threads, "measure_int8_operations");
  const auto chains = kernel_table().int8_chains;
  return chains == nullptr ? 0.0 : rate_of_chains(chains, num_threads);
}

double measure_bandwidth(std::int64_t bytes, int num_threads) {
  validate_num_threads(num_threads, "measure_bandwidth");
  if (bytes < 1) {
    throw std::invalid_argument("measure_bandwidth: bytes must be at least 1; got " + std::to_string(bytes));
  }
  const auto& table = kernel_table();
  constexpr std::int64_t kFloatsPerStep = 128;  // 8 vectors of the widest instruction set
  constexpr std::int64_t kFloatsPerRun = std::int64_t{1} << 24;
  const std::int64_t n_slices = chunks_for(num_threads), n_floats = (bytes + 3) / 4;
  const std::int64_t slice = (n_floats + n_slices * kFloatsPerStep - 1) / (n_slices * kFloatsPerStep) * kFloatsPerStep;
  const std::vector<float> data(static_cast<std::size_t>(slice * n_slices), 1.0F);
  // A run passes over a small array several times, whole: a slice by itself would fit in a nearer cache.
  const std::int64_t passes = std::max<std::int64_t>(1, kFloatsPerRun / (slice * n_slices));
  return best_rate(passes * n_slices, num_threads, [&](std::int64_t chunk, int) {
    const float sum = table.read_floats(data.data() + chunk % n_slices * slice, slice);
    sink.store(sum, std::memory_order_relaxed);
    return slice * static_cast<std::int64_t>(sizeof(float));
  });
}

double measure_updates(int num_threads) {
  validate_num_threads(num_threads, "measure_updates");
  const auto& table = kernel_table();
  constexpr std::int64_t kCounters = 2048;  // 8 KiB, and 8 KiB of indices: both stay in a 32 KiB cache
  std::vector<std::int32_t> at(kCounters);
  // An odd multiplier permutes the indices modulo a power of two: no counter repeats within a pass.
  for (std::int64_t i = 0; i < kCounters; ++i) at[i] = static_cast<std::int32_t>(i * 1103 % kCounters);
  return best_rate(chunks_for(num_threads), num_threads, [&](std::int64_t, int run) {
    constexpr std::int64_t kPasses = 512, kPlaces = 16, kStep = 64;
    // Where the counters lie relative to the indices halves the rate on some processors: runs try several places.
    const std::int64_t place = run % kPlaces * kStep;
    std::vector<std::uint32_t> counters(kCounters + kPlaces * kStep);
    for (std::int64_t pass = 0; pass < kPasses; ++pass) table.count_at(at.data(), kCounters, counters.data() + place);
    sink.store(static_cast<float>(counters[place]), std::memory_order_relaxed);
    return kPasses * kCounters;
  });
}

}  // namespace recfuse
