// Rows that are solved from their present factors on, in the coordinates of a half-step.
#pragma once

#include <cstdint>
#include <functional>

#include "ops/als_coordinates.hpp"

namespace recfuse {

struct HalfStepInput {
  const AlsParams& params;
  double mean;
  const SharedGram& gram;
  const AlsSide& others;
  AlsSide& side;
  int num_threads;
};

/// ready(first, n, rows) gets the rows of `table`, of the other side, in `coordinates`, at most kTurnedRows at a time,
/// on all threads.
void turn_table(const FactorTable& table, const Coordinates& coordinates, int num_threads,
                const std::function<void(std::int64_t first, std::int64_t n, const float* rows)>& ready);

/// Moves x from a row's present unknowns, in the coordinates of the half-step, to new ones. `at` is its place in
/// side.order. False: the row must be solved in float64.
using MoveRow = std::function<bool(std::size_t at, float* x)>;

/// At least n elements, of any value: growing would hold, and copy, the old ones beside the new ones.
inline void make_room(AlignedVector<float>& table, std::int64_t n) {
  if (table.size() >= static_cast<std::size_t>(n)) return;
  table = {};
  table.resize(static_cast<std::size_t>(n));
}

/// Room for rows in both coordinates, of one thread.
struct TurnScratch {
  explicit TurnScratch(const kernels::RowLayout& layout);
  AlignedVector<float> rows, turned;
};

/// Moves side.order[first .. end), at most kTurnedRows of them. Returns how many were solved in float64.
std::int64_t move_rows(const HalfStepInput& input, const Coordinates& coordinates, std::size_t first, std::size_t end,
                       TurnScratch& scratch, const MoveRow& move);

}  // namespace recfuse
