// What the solvers of alternating least squares cost, and which of them a problem is given to.
#pragma once

#include <cstdint>

#include "ops/als_side.hpp"

namespace recfuse {

/// The longest row of `side` that the exact solver solves by as many unknowns as it has entries (als_dual.hpp); 0 where
/// none is.
std::int64_t longest_dual_row(const AlsParams& params, const AlsSide& side, std::int64_t n_others);

/// params.solver, or what kAuto stands for: the solver that is predicted to approach the minimum soonest.
LinearSolver chosen_solver(const AlsParams& params, const CsrView& user_items, const CsrView& item_users);

}  // namespace recfuse
