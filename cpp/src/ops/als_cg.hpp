// One half-step by conjugate gradients.
#pragma once

#include <cstdint>

#include "ops/als_rows.hpp"

namespace recfuse {

/// By params.cg_steps steps from each row's present factors; leaves rows without entries alone. `table` is room that
/// the next call finds again. Returns how many rows were solved in float64.
std::int64_t solve_by_cg(const HalfStepInput& input, AlignedVector<float>& table);

}  // namespace recfuse
