// One half-step by conjugate gradients.
#pragma once

#include <cstdint>

#include "ops/als_gram.hpp"

namespace recfuse {

/// As solve_side, by params.cg_steps steps from each row's present factors; leaves empty rows alone. `table` is room
/// that the next call finds again.
std::int64_t solve_by_cg(const AlsParams& params, double mean, const SharedGram& gram, const AlsSide& others,
                         AlsSide& side, AlignedVector<float>& table, int num_threads);

}  // namespace recfuse
