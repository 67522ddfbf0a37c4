// Items rounded to int8 or int16, in the panels of their screen, and what rounding lost.
#pragma once

#include <atomic>
#include <cmath>
#include <compare>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "aligned.hpp"
#include "isa/dispatch.hpp"
#include "ops/fused_items.hpp"
#include "ops/neighbourhoods.hpp"
#include "ops/norm_order.hpp"
#include "ops/rounded_row.hpp"

namespace recfuse {

/// The most that the norm of an item or a query may be in int16, all modalities together: a sum is at most the product
/// of two. Rounding adds half a unit per dimension, 91 to the norm of as many as RoundedItems::fits() admits.
constexpr double kMaxNorm = 32767 - 128;

/// Norms are multiplied by this: more than their float64 sums of squares can have been rounded down.
constexpr double kUp = 1 + 0x1p-40;

/// What rounding adds to the norm of a lane of a chunk at most: half a unit to each of its elements, two of a word.
inline double rounded_lane() { return std::sqrt(2.0 * kernel_table().chunk_steps) / 2; }

/// Vectors y of a modality (items, or unit vectors for the cosine, minus their centre) are kept as unit * integers.
/// Items of about one size share a unit: they form a class, so that a few large ones do not make all others coarse.
class RoundedItems {
 public:
  /// A tile in panels, with the largest norm per modality of what rounding kept, and of what it lost.
  struct RoundedTile {
    const std::int32_t* panels;
    const double* kept_norms;
    const double* lost_norms;
  };

  /// Room for a tile that is not kept.
  struct Scratch {
    AlignedVector<std::int32_t> words, rows;
    std::vector<double> norms;
  };

  /// `kept`: rounds all tiles now and keeps them; otherwise each is rounded when it is asked for. The items of a class
  /// come from the largest down where `by_norm` says that it pays, otherwise by neighbourhood, if there are any, and
  /// id.
  RoundedItems(const FusedItems& items, Format format, bool kept, const NormOrder& by_norm, Neighbourhoods near = {});

  /// Whether sums of this many dimensions fit into 32 bits.
  static bool fits(const FusedItems& items);

  Format format() const { return format_; }
  /// Of int8: what the elements of items are at most; one more was added to each.
  int limit() const { return limit_; }
  const FusedItems& items() const { return items_; }
  const ScanOrder& order() const { return order_; }
  /// The panels of all tiles are numbered one behind the other; that of the number of tiles is how many there are.
  std::int64_t first_panel(std::size_t tile) const { return first_panels_[tile]; }
  std::int64_t n_panels() const { return first_panels_.back(); }
  /// Per item, kPanelWidth times its panel plus its place there; behind all panels where it is irregular.
  const std::vector<std::uint32_t>& slots() const;
  int n_classes() const { return n_classes_; }
  int class_of(std::size_t tile) const { return classes_[tile]; }

  /// Words of an item: all modalities behind one another, each padded with zeros, in the order segments() gives.
  std::int64_t steps() const { return steps_; }
  /// Whether segments fall into chunks, and of how many steps (KernelTable::chunk_steps); one where they do not.
  bool in_chunks() const { return chunk_steps_ > 0; }
  std::int64_t chunk_steps() const { return in_chunks() ? chunk_steps_ : steps_; }
  /// Words of a query: as many as of an item, and a start for every chunk.
  std::int64_t query_words() const { return query_words_; }
  std::int64_t first_step(int m) const { return first_steps_[static_cast<std::size_t>(m)]; }
  /// Modalities by falling unit.
  const std::vector<int>& segments() const { return segments_; }
  kernels::Segments segment_steps() const { return {segment_steps_.data(), static_cast<int>(segment_steps_.size())}; }
  /// Valid until the next call with this scratch.
  RoundedTile tile(std::size_t tile, Scratch& scratch) const;

  double unit(int klass, int m) const { return units_[slot(static_cast<std::size_t>(klass), m)]; }
  /// At least the norm, in units, that any item of the class has in a lane of a chunk; 0 without chunks.
  double lane_norm(int klass, int m) const {
    return lane_norms_.empty() ? 0.0 : lane_norms_[slot(static_cast<std::size_t>(klass), m)];
  }
  bool centred() const { return centred_; }
  /// Null where the modality is not centred.
  const double* centre(int m) const;
  double centre_norm(int m) const { return centre_norms_[static_cast<std::size_t>(m)]; }

  /// Whether the norms of panels, fallen to what any later panel of the tile has, say where to stop.
  bool ordered_by_norm() const { return !panel_norms_.empty(); }
  /// Of a panel and of all behind it in the tile, per modality.
  const float* panel_norms(std::size_t tile, std::int64_t panel) const {
    return &panel_norms_[static_cast<std::size_t>(first_panels_[tile] + panel) *
                         static_cast<std::size_t>(items_.n_modalities())];
  }

  /// A panel of a tile.
  struct Panel {
    std::size_t tile;
    std::int64_t panel;
    auto operator<=>(const Panel&) const = default;
  };
  const Neighbourhoods& neighbourhoods() const { return near_; }
  /// Their centres, interleaved for KernelTable::score_panel.
  const float* centre_panels() const { return centre_panels_.data(); }
  /// Those that have items of a neighbourhood, in their order.
  std::span<const Panel> near(int centre) const { return near_panels_[static_cast<std::size_t>(centre)]; }

  /// Makes a second copy of what is kept, item by item, for lists that name few items: `row_words()` words each,
  /// padded with zeros to whole lines, in the order of slots. int8 of one modality only.
  void keep_rows() const;
  /// Null before keep_rows().
  const std::int32_t* rows() const { return rows_made_.load(std::memory_order_acquire); }
  std::int64_t row_words() const { return (steps_ + kLineWords - 1) / kLineWords * kLineWords; }

  bool kept() const { return !words_.empty(); }
  /// With the order of the scan.
  std::int64_t bytes() const {
    const std::int64_t n_row_words = rows() == nullptr ? 0 : n_panels() * kernels::kPanelWidth * row_words();
    return 4 * (static_cast<std::int64_t>(words_.size() + order_.ids.size() + panel_norms_.size()) + n_row_words);
  }

 private:
  static constexpr std::int64_t kLineWords = 16;

  std::size_t slot(std::size_t row, int m) const {
    return row * static_cast<std::size_t>(items_.n_modalities()) + static_cast<std::size_t>(m);
  }
  double scale(std::int32_t id, int m) const;
  bool present(std::int32_t id, int m) const;
  double size_of(std::int32_t id, int m, RoundedRow& row) const;
  void find_centres();
  void choose_classes(std::vector<char>& class_of_item, std::int64_t least_items);
  void measure_lanes(std::span<const char> class_of_item, std::span<const float> lanes);
  void order_segments();
  void order_items(const std::vector<char>& class_of_item, const NormOrder& by_norm);
  void measure_panels();
  void find_near_panels();
  void find_slots() const;
  std::size_t tile_words(std::size_t tile) const;
  void round_tile(std::size_t tile, std::int32_t* words, double* norms, AlignedVector<std::int32_t>& rows) const;

  const FusedItems& items_;
  Format format_;
  int limit_;
  std::int64_t chunk_steps_;
  ScanOrder order_;
  int n_classes_ = 1;
  std::int64_t steps_ = 0, query_words_ = 0;
  std::vector<std::int64_t> first_steps_;  // per modality
  std::vector<int> segments_;
  std::vector<std::int64_t> segment_steps_;  // in their order
  bool centred_ = false;
  std::vector<std::vector<double>> centres_;  // per modality; empty: none
  std::vector<double> centre_norms_;
  std::vector<double> units_;               // (classes, modalities)
  std::vector<double> lane_norms_;          // (classes, modalities); empty where sums have no chunks
  std::vector<int> classes_;                // per tile
  std::vector<float> panel_norms_;          // empty where items are ordered by id
  std::vector<std::int64_t> first_panels_;  // per tile, and how many there are
  Neighbourhoods near_;
  std::vector<std::vector<Panel>> near_panels_;  // per centre
  std::vector<float> centre_panels_;
  // Made at first use.
  mutable std::once_flag slots_made_;
  mutable std::vector<std::uint32_t> slots_;
  // Of kept tiles; empty otherwise.
  std::vector<std::size_t> offsets_;
  std::vector<double> norms_;  // (tiles, 2, modalities): kept, lost
  AlignedVector<std::int32_t> words_;
  // Made by keep_rows().
  mutable std::once_flag rows_once_;
  mutable AlignedVector<std::int32_t> rows_;
  mutable std::atomic<const std::int32_t*> rows_made_ = nullptr;
};

}  // namespace recfuse
