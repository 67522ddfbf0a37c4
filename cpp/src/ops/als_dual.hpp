// Exact solutions of short rows, from a system of as many unknowns as the row has entries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ops/als_coordinates.hpp"
#include "ops/als_entries.hpp"
#include "ops/als_rows.hpp"

namespace recfuse {

/// With D diagonal, in the coordinates of the half-step, and R the gathered factors times the roots of the entries'
/// weights W and of D^-1, a row's system (D + Z'WZ) x = Z'c is
///
///     (I + R R') s = W^-1/2 c,   x = D^-1/2 R' s,
///
/// because D^1/2 (I + R'R) R' = D^1/2 R' (I + R R'). All pivots are at least 1.
class DualRows {
 public:
  /// Solves none where that does not pay, or the coordinates are not good enough. `table` is room that the next
  /// half-step finds again.
  DualRows(const HalfStepInput& input, AlignedVector<float>& table);
  ~DualRows();

  /// The first place in side.order that is solved here; all behind it are.
  std::size_t first() const { return first_; }

  /// Solves side.order[first .. end), at most kTurnedRows of them, as worker i. Returns the places, as bits from
  /// `first` on, of the rows that must be solved another way.
  unsigned solve(std::size_t first, std::size_t end, int i);

 private:
  struct Worker;

  void find_coordinates();
  Worker& worker(int i);
  bool solve_row(std::size_t at, float* x, Worker& w) const;
  bool set_spread(double penalty, Worker& w) const;

  const HalfStepInput& input_;
  const kernels::KernelTable& kernels_;
  const kernels::RowLayout layout_;  // of factors
  const std::int64_t unknowns_;
  std::int64_t longest_ = 0;  // row that is solved here
  std::size_t first_;
  std::unique_ptr<const Coordinates> coordinates_;
  double least_eigenvalue_ = 0;
  AlignedVector<float>& turned_;
  const float* table_ = nullptr;  // the others' factors in these coordinates
  AlignedVector<float> zeros_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace recfuse
