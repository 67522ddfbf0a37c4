#include "ops/als_rows.hpp"

#include <algorithm>
#include <cmath>

#include "ops/als_solve.hpp"
#include "parallel_for.hpp"

namespace recfuse {

using kernels::kTurnedRows;

TurnScratch::TurnScratch(const kernels::RowLayout& layout) {
  for (auto* block : {&rows, &turned}) block->assign(static_cast<std::size_t>(kTurnedRows * layout.stride), 0.0F);
}

void turn_table(const FactorTable& table, const Coordinates& coordinates, int num_threads,
                const std::function<void(std::int64_t first, std::int64_t n, const float* rows)>& ready) {
  constexpr std::int64_t kChunk = 42 * kTurnedRows;
  parallel_for((table.rows + kChunk - 1) / kChunk, num_threads, [&](std::int64_t chunk, int) {
    TurnScratch scratch(table.layout);
    const std::int64_t end = std::min(table.rows, (chunk + 1) * kChunk);
    for (std::int64_t first = chunk * kChunk; first < end; first += kTurnedRows) {
      const std::int64_t n = std::min<std::int64_t>(kTurnedRows, end - first);
      const float* rows = table.row(first);
      if (n < kTurnedRows) {
        std::copy_n(rows, n * table.layout.stride, scratch.rows.data());
        rows = scratch.rows.data();
      }
      coordinates.turn_others(rows, scratch.turned.data());
      ready(first, n, scratch.turned.data());
    }
  });
}

std::int64_t move_rows(const HalfStepInput& input, const Coordinates& coordinates, std::size_t first, std::size_t end,
                       TurnScratch& scratch, const MoveRow& move) {
  const std::int64_t stride = coordinates.layout.stride;
  const auto place = [&](AlignedVector<float>& rows, std::size_t at) {
    return rows.data() + static_cast<std::int64_t>(at - first) * stride;
  };
  for (std::size_t at = first; at < end; ++at) {
    input.side.copy_unknowns(input.side.order[at], input.params, place(scratch.rows, at));
  }
  coordinates.turn(scratch.rows.data(), scratch.turned.data());
  bool moved[kTurnedRows] = {};
  for (std::size_t at = first; coordinates.found && at < end; ++at) {
    moved[at - first] = move(at, place(scratch.turned, at));
  }
  coordinates.turn_back(scratch.turned.data(), scratch.rows.data());
  std::int64_t in_float64 = 0;
  for (std::size_t at = first; at < end; ++at) {
    const std::int64_t row = input.side.order[at];
    const float* x = place(scratch.rows, at);
    const auto is_finite = [](float value) { return std::isfinite(value); };
    if (moved[at - first] && std::all_of(x, x + unknowns(input.params), is_finite)) {
      input.side.assign(row, input.params, x);
      continue;
    }
    solve_row_in_float64(input.params, input.mean, input.gram, input.others, input.side, row);
    ++in_float64;
  }
  return in_float64;
}

}  // namespace recfuse
