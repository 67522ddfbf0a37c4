// What this machine reaches at most, measured now: the denominators of every "% of the floor".
#pragma once

#include <cstdint>

namespace recfuse {

/// float32 multiply-adds on registers alone, in the instruction set in use: operations per second (2 each).
double measure_flops(int num_threads = 0);

/// The same of the integers that the screens use at best, int8; 0 where the instruction set has none for it.
double measure_int8_operations(int num_threads = 0);

/// Reading an array of `bytes`, in shares of one per thread, over and over: bytes per second.
double measure_bandwidth(std::int64_t bytes, int num_threads = 0);

/// Increments of scattered counters that stay in the first cache: increments per second.
double measure_updates(int num_threads = 0);

// Each takes about 0.2 s and reports its best run. Throw std::invalid_argument for num_threads < 0 or bytes < 1.

}  // namespace recfuse
