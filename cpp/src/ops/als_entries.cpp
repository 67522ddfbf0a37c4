#include "ops/als_entries.hpp"

#include <algorithm>

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
    kernel_table().implicit_entries(values, n, alpha, weights.data(), targets.data());
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

}  // namespace recfuse
