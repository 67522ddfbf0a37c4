#include "ops/topk_rows.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "recfuse/canonical.hpp"

namespace recfuse {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();

}  // namespace

float no_threshold() { return -kLargest; }

float screening_threshold(float worst) {
  if (std::isinf(worst)) return worst > 0 ? kLargest : -kLargest;  // from there on scores are rounded to infinity
  const double lowered = worst - std::abs(static_cast<double>(worst)) * 0x1p-19 - 0x1p-126;
  return static_cast<float>(std::max<double>(lowered, -kLargest));
}

TopkRows::TopkRows(std::size_t n_rows, std::size_t k, const kernels::KernelTable& kernels)
    : kernels_(kernels), k_(k), room_(k + std::max<std::size_t>(32, k / 2)), keys_(n_rows * room_), states_(n_rows) {}

float TopkRows::threshold(std::size_t row) const {
  const std::uint64_t beyond = states_[row].beyond;
  return beyond == 0 ? no_threshold() : screening_threshold(key_score(beyond + 1));
}

void TopkRows::shrink(std::size_t row) {
  State& state = states_[row];
  std::uint64_t* const keys = keys_.data() + row * room_;
  if (state.n == k_) {
    state.beyond = *std::min_element(keys, keys + k_) - 1;
    return;
  }
  state.n = static_cast<std::uint64_t>(
      kernels_.keep_largest(keys, static_cast<std::int64_t>(state.n), static_cast<std::int64_t>(k_), &state.beyond));
}

void TopkRows::sort(std::size_t row, std::vector<std::uint64_t>& sorted) {
  shrink(row);
  const std::uint64_t* const keys = keys_.data() + row * room_;
  const std::size_t n = states_[row].n;
  sorted.resize(n);
  if (static_cast<std::int64_t>(n) <= kernels_.most_ranked) {
    kernels_.rank_keys(keys, static_cast<std::int64_t>(n), sorted.data());
  } else {
    std::copy_n(keys, n, sorted.data());
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
  }
  sorted.resize(std::min(n, k_));
}

}  // namespace recfuse
