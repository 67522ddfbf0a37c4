// One half-step of iALS++: every row by one round over blocks of its unknowns.
#pragma once

#include <cstdint>

#include "ops/als_rows.hpp"

namespace recfuse {

/// As solve_by_cg. S. Rendle, W. Krichene, L. Zhang, Y. Koren, "iALS++: Speeding up matrix factorization with subspace
/// optimization", 2021; the blocks are of the coordinates in which the Gram matrix couples none of them.
std::int64_t solve_by_blocks(const HalfStepInput& input, AlignedVector<float>& table);

}  // namespace recfuse
