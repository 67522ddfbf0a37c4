// The screen in float32: packed on the fly, for every fusion and every instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/table.hpp"
#include "ops/candidates.hpp"
#include "ops/query_block.hpp"

namespace recfuse {

class FloatScreen {
 public:
  static constexpr std::int64_t kFewQueries = 6;  // up to here, rows read once beat packed panels

  /// Queries [first, last) of a block.
  struct Packed {
    std::int64_t first, last;
    std::vector<float> panels;  // empty where rows are read instead
  };

  struct Prepared {
    std::vector<float> panels;  // empty where rows are read instead
  };

  struct Scratch {
    std::vector<float> thresholds;  // of the queries of the block, for the tile at hand
    std::vector<double> bounds;     // likewise: how far from the score a screened value may be
    std::vector<float> scores;      // one panel or row per modality, for fusions that are not linear
    std::vector<float> query;
  };

  FloatScreen(const Queries& queries, const ScanOrder& order, const Filters& filters);

  const Filters& left_to_candidates() const { return filters_; }

  static std::int64_t tile_items(std::int64_t total_dim);

  const ScanOrder& order() const { return order_; }
  int panel_queries() const { return kernels_.mr; }
  static std::int64_t candidates(std::int64_t k) { return 2 * k + 64; }
  std::int64_t chunk_tiles() const { return 8; }
  static bool guesses() { return false; }
  Packed pack(std::int64_t first, std::int64_t last) const;
  static std::span<const float> known_thresholds(const Packed& /*packed*/, Scratch& /*scratch*/) { return {}; }
  bool reaches(std::size_t /*tile*/, const Packed& /*packed*/, const Candidates& /*candidates*/) const { return true; }
  void prepare(std::size_t tile, Prepared& prepared) const;
  void scan(std::size_t tile, const Prepared& prepared, const Packed& packed, Scratch& scratch,
            Candidates& candidates) const;

 private:
  /// Queries that are screened together: [first, last), at most kernels_.mr.
  struct QueryPanel {
    std::int64_t first, last;
    const float* packed;
    float* thresholds;
    const double* bounds;
  };

  double tile_bound(std::int64_t q, std::size_t tile) const;
  float tile_threshold(const Candidates& candidates, std::int64_t q, int group, double bound) const;
  void scan_rows(std::size_t tile, const Packed& packed, Scratch& scratch, Candidates& candidates) const;
  void scan_panel(std::size_t tile, std::int64_t item, const float* items, const QueryPanel& queries, Scratch& scratch,
                  Candidates& candidates) const;
  int screen(std::size_t tile, const float* items, const QueryPanel& queries, const kernels::PanelHits& hits,
             Scratch& scratch) const;
  void keep(int group, std::int64_t q, float screened, double bound, std::int64_t item, float& threshold,
            Candidates& candidates) const;
  bool reads_rows() const;
  bool linear() const { return is_linear(queries_.args().fusion); }

  const Queries& queries_;
  const FusedItems& items_;
  const ScanOrder& order_;
  const Filters& filters_;
  const kernels::KernelTable& kernels_;
};

}  // namespace recfuse
