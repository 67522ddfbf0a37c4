#include "ops/exact_topk.hpp"

#include <algorithm>
#include <functional>
#include <limits>

namespace recfuse {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool contains(const CsrView& csr, std::int64_t row, std::int32_t column) {
  const std::int32_t* begin = csr.row_indices(row);
  return std::binary_search(begin, begin + csr.row_size(row), column);
}

}  // namespace

void ExactTopk::clear() {
  worst_ = 0;
  keys_.clear();
}

float ExactTopk::worst_score() const { return worst_ == 0 ? -kInfinity : key_score(worst_); }

void ExactTopk::shrink() {
  if (keys_.size() < k_) return;
  const auto kth = keys_.begin() + static_cast<std::ptrdiff_t>(k_) - 1;
  std::nth_element(keys_.begin(), kth, keys_.end(), std::greater<>());
  worst_ = *kth;
  keys_.resize(k_);
}

const std::vector<std::uint64_t>& ExactTopk::sorted() {
  shrink();
  std::sort(keys_.begin(), keys_.end(), std::greater<>());
  return keys_;
}

std::int64_t ExactTopk::write(std::int64_t row, const TopkOut& out) {
  const auto& keys = sorted();
  const auto found = static_cast<std::ptrdiff_t>(keys.size());
  std::transform(keys.begin(), keys.end(), out.ids.row(row), key_id);
  std::transform(keys.begin(), keys.end(), out.scores.row(row), key_score);
  std::fill(out.ids.row(row) + found, out.ids.row(row) + out.ids.cols, -1);
  std::fill(out.scores.row(row) + found, out.scores.row(row) + out.scores.cols, -kInfinity);
  return found;
}

bool Filters::excludes(std::int64_t query, std::int32_t id) const {
  return exclude.given() && contains(exclude, query, id);
}

bool Filters::allows(std::int64_t query, std::int32_t id) const {
  return (allowed == nullptr || (allowed[id / 32] >> (id % 32) & 1) != 0) &&
         (!allow.given() || contains(allow, query, id));
}

}  // namespace recfuse
