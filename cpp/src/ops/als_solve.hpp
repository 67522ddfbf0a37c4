// One half-step: the least-squares systems of all users, or of all items.
#pragma once

#include <cstdint>

#include "ops/als_gram.hpp"

namespace recfuse {

/// Solves the rows of `side` in place, from `mean`, the factors of `others`, and `gram`, made from these.
/// `scratch` is room that the next call finds again. Returns how many rows were solved in float64 because float32 could
/// not hold a pivot.
std::int64_t solve_side(const AlsParams& params, double mean, const SharedGram& gram, const AlsSide& others,
                        AlsSide& side, AlignedVector<float>& scratch, int num_threads);

/// The same system in float64 throughout, without care for speed. Throws std::domain_error, which names the row.
void solve_row_in_float64(const AlsParams& params, double mean, const SharedGram& gram, const AlsSide& others,
                          AlsSide& side, std::int64_t row);

}  // namespace recfuse
