#include "ops/als_entries.hpp"

#include <algorithm>
#include <numeric>

#include "isa/dispatch.hpp"

namespace recfuse {

void EntryTerms::set(const AlsParams& params, double mean, const AlsSide& others, const RowEntries& entries,
                     std::int64_t first, std::int64_t n) {
  if (weights.size() < static_cast<std::size_t>(n)) {
    weights.assign(static_cast<std::size_t>(n), 1.0F);
    targets.resize(static_cast<std::size_t>(n));
  }
  const float* values = entries.values + first;
  if (params.objective == AlsObjective::kImplicit) {
    const auto alpha = static_cast<float>(params.alpha);
    kernel_table().implicit_entries(values, n, alpha, static_cast<float>(params.base_confidence), weights.data(),
                                    targets.data());
  } else if (params.biases) {
    const std::int32_t* ids = entries.ids + first;
    for (std::int64_t j = 0; j < n; ++j) {
      targets[static_cast<std::size_t>(j)] =
          static_cast<float>(values[j] - mean) - others.biases[static_cast<std::size_t>(ids[j])];
    }
  } else {
    std::copy_n(values, n, targets.data());
  }
}

std::int64_t EntryTerms::take_roots(const AlsParams& params, const std::int32_t*& ids, std::int64_t n) {
  if (params.objective != AlsObjective::kImplicit) return n;
  const std::int64_t n_added = params.base_confidence < 1 ? move_negative_last(ids, n) : n;
  kernel_table().square_roots(n, weights.data());
  return n_added;
}

std::int64_t EntryTerms::move_negative_last(const std::int32_t*& ids, std::int64_t n) {
  const auto is_added = [&](std::int64_t j) { return weights[static_cast<std::size_t>(j)] >= 0; };
  places_.resize(static_cast<std::size_t>(n));
  std::iota(places_.begin(), places_.end(), 0);
  const auto middle = std::stable_partition(places_.begin(), places_.end(), is_added);
  if (middle == places_.end()) return n;
  const std::int64_t n_added = middle - places_.begin();
  ids_.clear();
  for (const std::int64_t place : places_) ids_.push_back(ids[place]);
  ids = ids_.data();
  moved_.resize(static_cast<std::size_t>(n));
  for (auto* values : {&weights, &targets}) {
    for (std::size_t j = 0; j < places_.size(); ++j) moved_[j] = (*values)[static_cast<std::size_t>(places_[j])];
    std::copy_n(moved_.begin(), n, values->begin());
  }
  for (std::int64_t j = n_added; j < n; ++j) weights[static_cast<std::size_t>(j)] *= -1;
  return n_added;
}

bool has_negative_weight(const AlsParams& params, const RowEntries& entries) {
  if (params.objective != AlsObjective::kImplicit || params.base_confidence == 1) return false;
  const auto alpha = static_cast<float>(params.alpha), base = static_cast<float>(params.base_confidence);
  const auto is_negative = [&](float value) { return extra_confidence(value, alpha, base) < 0; };
  return std::any_of(entries.values, entries.values + entries.n, is_negative);
}

}  // namespace recfuse
