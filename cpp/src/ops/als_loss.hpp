// The objective of alternating least squares, in float64 and in a fixed order.
#pragma once

#include "ops/als_side.hpp"

namespace recfuse {

double als_loss(const AlsParams& params, double mean, const AlsSide& users, const AlsSide& items, int num_threads);

}  // namespace recfuse
