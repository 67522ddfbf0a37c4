// Sums whose bits do not depend on who computes the parts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "parallel_for.hpp"

namespace recfuse {

/// total += part(0) + part(1) + ..., in this order. `part(chunk, worker, out)` adds to `out`, zeros of the size of
/// `total`. Parts are computed a wave at a time, so that memory does not grow with their number.
template <class Part>
void sum_in_order(std::int64_t n_chunks, int num_threads, std::span<double> total, const Part& part) {
  const std::int64_t wave = 2 * plan_workers(n_chunks, num_threads);
  std::vector<std::vector<double>> parts(static_cast<std::size_t>(std::min(wave, n_chunks)));
  for (std::int64_t first = 0; first < n_chunks; first += wave) {
    const std::int64_t n = std::min(wave, n_chunks - first);
    parallel_for(n, num_threads, [&](std::int64_t i, int worker) {
      auto& out = parts[static_cast<std::size_t>(i)];
      out.assign(total.size(), 0.0);
      part(first + i, worker, std::span<double>(out));
    });
    for (std::int64_t i = 0; i < n; ++i) {
      const auto& out = parts[static_cast<std::size_t>(i)];
      for (std::size_t j = 0; j < total.size(); ++j) total[j] += out[j];
    }
  }
}

}  // namespace recfuse
