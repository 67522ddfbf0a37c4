// One function pointer per kernel: what every instruction set provides. Plain types only.
#pragma once

#include <cstdint>

namespace recfuse::kernels {

/// Entries of one panel that passed their row's threshold: row r owns the slots from r * nr on.
struct PanelHits {
  float* scores;         // mr * nr
  std::int32_t* lanes;   // mr * nr, position of the item in its panel
  std::int32_t* counts;  // mr
};

struct KernelTable {
  // Sizes of the register block of `screen_panel`: mr queries times nr items.
  int mr;
  int nr;

  /// canonical_dot of canonical.hpp, same bits.
  double (*canonical_dot)(const float* a, const float* b, std::int64_t n);

  /// Interleaves n_rows <= width rows (null: zeros), each times its scale, as panel[k * width + row].
  void (*pack_panel)(const float* const* rows, const float* scales, int n_rows, int width, std::int64_t n,
                     float* panel);

  /// Scores mr queries against nr items, both packed, in registers; stores only what reaches the
  /// threshold of its query. Returns how many entries passed; `hits` is untouched when that is 0.
  int (*screen_panel)(const float* queries, const float* items, std::int64_t n, const float* thresholds,
                      const PanelHits& hits);

  /// The same scores, all of them: scores[r * nr + lane].
  void (*score_panel)(const float* queries, const float* items, std::int64_t n, float* scores);

  /// out[i] = <query, items + ids[i] * stride>; ids null: rows 0, 1, 2, ...
  void (*score_rows)(const float* query, const float* items, std::int64_t stride, const std::int32_t* ids,
                     std::int64_t n_rows, std::int64_t n, float* out);

  /// The machine's ceilings (ceilings.hpp): operations in registers, reads of n floats, scattered increments.
  std::int64_t (*multiply_add_chains)(std::int64_t steps, float* sink);
  float (*read_floats)(const float* data, std::int64_t n);
  void (*count_at)(const std::int32_t* at, std::int64_t n, std::uint32_t* counters);
};

}  // namespace recfuse::kernels
