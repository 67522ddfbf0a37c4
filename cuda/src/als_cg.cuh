// Rows by preconditioned conjugate gradients. Lanes of a warp own columns: a group of them reads an entry's features,
// adds up its product with the direction, and adds the features, so scaled, to sums in registers; no barrier belongs to
// an entry. Every warp that works on a row holds all of its vectors, so that only sums over entries are exchanged.
#pragma once

#include <cstdint>

#include "als_rows.cuh"
#include "als_spectrum.cuh"

namespace recfuse::cuda {

/// The systems of a side, in the coordinates of the half-step: (D + Z'WZ) x = Z'c, of rows one after the other.
struct CgSystems {
  RowsOnDevice rows;         // what entries weigh, and towards what
  const float* features;     // (others, width)
  int width;                 // whole quads
  const float* diagonal;     // (width): that of the Gram matrix; null: 0
  const float* squares;      // (width): mean squares of the features, where there is no Gram matrix
  const Spectrum* spectrum;  // of the same: its least preconditions; or null
  const double* penalties;   // of every row, or one for all
  bool one_penalty;
  int steps;
  float* x;  // (rows, width)
};

/// Where long rows stand between two passes over their parts.
struct CgStates {
  float* directions;  // (rows, columns)
  float* residuals;   // (rows, columns)
  float* energies;    // (rows, 3): that of the direction, the least, and 1 when done
};

/// `kLanes` lanes read an entry, `kQuads` times four columns each.
template <int kLanes, int kQuads>
struct CgLane {
  Quad<float> direction[kQuads], product[kQuads], features[kQuads];
  float sum, targets, energy, least;
  bool done;
};

template <int kLanes_, int kQuads_>
struct CgRow {
  static constexpr int kLanes = kLanes_, kQuads = kQuads_;
  static constexpr int kColumns = kTile * kLanes * kQuads;
  // Floats: what a warp adds up, which ends with the count of targets; and its vectors, a lane's elements together.
  static constexpr int kSums = kColumns + kTile, kVector = kTile * kWarp * kQuads, kVectors = 2 * kVector;
  using Lane = CgLane<kLanes, kQuads>;

  const CgSystems& systems;
  std::int64_t row, first, last;  // and its entries
  float* vectors;                 // of the warp: x, residual

  RECFUSE_DEVICE CgRow(const CgSystems& of, std::int64_t number, float* shared)
      : systems(of), row(number), first(of.rows.indptr[number]), last(of.rows.indptr[number + 1]), vectors(shared) {}

  static RECFUSE_DEVICE int column(int lane, int q) { return (q * kLanes + lane % kLanes) * kTile; }
  /// Several groups hold the same: one of them speaks.
  static RECFUSE_DEVICE bool speaks(int lane) { return lane < kLanes; }
  RECFUSE_DEVICE float* x(int lane, int q) const { return vectors + (q * kWarp + lane) * kTile; }
  RECFUSE_DEVICE float* residual(int lane, int q) const { return x(lane, q) + kVector; }
  RECFUSE_DEVICE Quad<float> load(const float* vector, int lane, int q) const {
    return column(lane, q) < systems.width ? load_quad(vector + column(lane, q)) : Quad<float>{};
  }

  /// The first direction is the row itself: entries say what gradient they have there.
  RECFUSE_DEVICE void begin(Lane& own, int lane) const {
    own.done = false;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      own.direction[q] = load(systems.x + row * systems.width, lane, q);
      store_quad(x(lane, q), own.direction[q]);
    }
  }

  /// The sums over entries [from, to), a group's share by every `members`-th warp; in all lanes of the warp.
  template <class Block, class Lanes>
  RECFUSE_DEVICE void add_entries(Block& block, int warp, Lanes& lanes, bool gradient, std::int64_t from,
                                  std::int64_t to, int member, int members) const {
    constexpr int kGroups = kWarp / kLanes;
    block.each_lane(warp, [&](int thread, int) {
      Lane& own = lanes[thread];
      own.targets = 0;
      RECFUSE_UNROLL
      for (int q = 0; q < kQuads; ++q) own.product[q] = Quad<float>{};
    });
    if (lanes[warp * kWarp].done) return;
    for (std::int64_t base = from + member * kGroups; base < to; base += members * kGroups) {
      block.each_lane(warp, [&](int thread, int lane) {
        const std::int64_t entry = base + lane / kLanes;
        dot(lanes[thread], lane, entry < to ? entry : base);
      });
      block.template add_across<1, kLanes / 2>(warp, [&](int thread) -> float& { return lanes[thread].sum; });
      block.each_lane(warp, [&](int thread, int lane) {
        const std::int64_t entry = base + lane / kLanes;
        if (entry < to) add(lanes[thread], gradient, entry);
      });
    }
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        block.template add_across<kLanes, kWarp / 2>(
            warp, [&](int thread) -> float& { return lanes[thread].product[q].v[i]; });
      }
    }
    block.template add_across<kLanes, kWarp / 2>(warp, [&](int thread) -> float& { return lanes[thread].targets; });
  }

  /// From the sums over all entries to the next direction.
  template <class Block, class Lanes>
  RECFUSE_DEVICE void advance(Block& block, int warp, Lanes& lanes, int pass) const {
    const auto sum = [&](int thread) -> float& { return lanes[thread].sum; };
    if (pass == 0) {
      block.each_lane(warp, [&](int thread, int lane) { set_residual(lanes[thread], lane); });
      block.template add_across<1, kLanes / 2>(warp, sum);
      block.each_lane(warp, [&](int thread, int lane) { start(lanes[thread], lane); });
      return;
    }
    block.each_lane(warp, [&](int thread, int lane) { set_curvature(lanes[thread], lane); });
    block.template add_across<1, kLanes / 2>(warp, sum);
    block.each_lane(warp, [&](int thread, int lane) { move(lanes[thread], lane, pass); });
    block.template add_across<1, kLanes / 2>(warp, sum);
    block.each_lane(warp, [&](int thread, int lane) { turn(lanes[thread], lane); });
  }

  /// A row that has no solution becomes one that is not finite.
  RECFUSE_DEVICE void end(const Lane& own, int lane) const {
    if (!speaks(lane)) return;
    const float lost = own.energy - own.energy;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      if (column(lane, q) >= systems.width) continue;
      Quad<float> to = load_quad(x(lane, q));
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) to.v[i] += lost;
      store_quad(systems.x + row * systems.width + column(lane, q), to);
    }
  }

  /// As begin(), and where passes before this one left off.
  RECFUSE_DEVICE void load_state(Lane& own, int lane, int pass, const CgStates& states, std::int64_t place) const {
    begin(own, lane);
    if (pass == 0) return;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      own.direction[q] = load_quad(states.directions + place * kColumns + column(lane, q));
      store_quad(residual(lane, q), load_quad(states.residuals + place * kColumns + column(lane, q)));
    }
    own.energy = states.energies[3 * place];
    own.least = states.energies[3 * place + 1];
    own.done = states.energies[3 * place + 2] != 0;
  }
  RECFUSE_DEVICE void store_state(const Lane& own, int lane, const CgStates& states, std::int64_t place) const {
    end(own, lane);
    if (!speaks(lane)) return;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      store_quad(states.directions + place * kColumns + column(lane, q), own.direction[q]);
      store_quad(states.residuals + place * kColumns + column(lane, q), load_quad(residual(lane, q)));
    }
    if (lane != 0) return;
    states.energies[3 * place] = own.energy;
    states.energies[3 * place + 1] = own.least;
    states.energies[3 * place + 2] = own.done ? 1.0F : 0.0F;
  }

  /// A lane's sums to where others find them.
  static RECFUSE_DEVICE void show(const Lane& own, int lane, float* sums) {
    if (!speaks(lane)) return;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) store_quad(sums + column(lane, q), own.product[q]);
    if (lane == 0) sums[kColumns] = own.targets;
  }
  /// The sum of those of `n`, in order.
  template <class Sum>
  static RECFUSE_DEVICE void gather(Lane& own, int lane, const float* sums, std::int64_t n) {
    const auto all = [&](int at) {
      Sum sum = sums[at];
      for (std::int64_t i = 1; i < n; ++i) sum += sums[i * kSums + at];
      return static_cast<float>(sum);
    };
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) own.product[q].v[i] = all(column(lane, q) + i);
    }
    own.targets = all(kColumns);
  }

 private:
  RECFUSE_DEVICE void dot(Lane& own, int lane, std::int64_t entry) const {
    const float* const features = systems.features + systems.rows.other(entry) * systems.width;
    own.sum = 0;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) own.features[q] = load(features, lane, q);
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        own.sum = multiply_add(own.features[q].v[i], own.direction[q].v[i], own.sum);
      }
    }
  }

  RECFUSE_DEVICE void add(Lane& own, bool gradient, std::int64_t entry) const {
    float weight, target;
    systems.rows.terms(entry, weight, target);
    const float scale = gradient ? target - weight * own.sum : weight * own.sum;
    if (target != 0) own.targets += 1;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        own.product[q].v[i] = multiply_add(scale, own.features[q].v[i], own.product[q].v[i]);
      }
    }
  }

  RECFUSE_DEVICE float penalty() const { return static_cast<float>(systems.penalties[systems.one_penalty ? 0 : row]); }
  /// D, and the inverse of what is near D + Z'WZ.
  RECFUSE_DEVICE void diagonal(int lane, int q, Quad<float>& diagonal, Quad<float>& inverse) const {
    const Quad<float> shared = systems.diagonal == nullptr ? Quad<float>{} : load(systems.diagonal, lane, q);
    const Quad<float> squares = systems.squares == nullptr ? Quad<float>{} : load(systems.squares, lane, q);
    const float least = systems.spectrum == nullptr ? 0.0F : systems.spectrum->least;
    const auto n = static_cast<float>(last - first);
    RECFUSE_UNROLL
    for (int i = 0; i < kTile; ++i) {
      diagonal.v[i] = penalty() + shared.v[i];
      const float lifted = diagonal.v[i] < least ? least : diagonal.v[i];
      const float near = systems.diagonal == nullptr ? multiply_add(n, squares.v[i], penalty()) : lifted;
      inverse.v[i] = near > 0 ? 1 / near : 1.0F;
    }
  }

  RECFUSE_DEVICE void set_residual(Lane& own, int lane) const {
    own.sum = 0;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      Quad<float> d, inverse;
      diagonal(lane, q, d, inverse);
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        const float left = multiply_add(-d.v[i], own.direction[q].v[i], own.product[q].v[i]);
        own.product[q].v[i] = left;
        own.direction[q].v[i] = inverse.v[i] * left;
        own.sum = multiply_add(left, own.direction[q].v[i], own.sum);
      }
      store_quad(residual(lane, q), own.product[q]);
    }
  }

  RECFUSE_DEVICE void start(Lane& own, int lane) const {
    constexpr float kSmallestEnergy = 0x1p-50F;  // of the first, as on the CPU
    own.energy = own.sum;
    own.least = kSmallestEnergy * own.energy;
    if (own.targets == 0) {  // nothing but dislikes: exactly 0, as Cholesky finds
      own.energy = 0;
      RECFUSE_UNROLL
      for (int q = 0; q < kQuads; ++q) store_quad(x(lane, q), Quad<float>{});
    }
    own.done = !(own.energy > own.least);
  }

  RECFUSE_DEVICE void set_curvature(Lane& own, int lane) const {
    own.sum = 0;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      Quad<float> d, inverse;
      diagonal(lane, q, d, inverse);
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        own.product[q].v[i] = multiply_add(d.v[i], own.direction[q].v[i], own.product[q].v[i]);
        own.sum = multiply_add(own.direction[q].v[i], own.product[q].v[i], own.sum);
      }
    }
  }

  RECFUSE_DEVICE void move(Lane& own, int lane, int pass) const {
    if (!own.done && !(own.sum > 0)) own.done = true;
    const float length = own.done ? 0.0F : own.energy / own.sum;
    own.sum = 0;
    if (own.done) return;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      Quad<float> to = load_quad(x(lane, q)), left = load_quad(residual(lane, q)), d, inverse;
      diagonal(lane, q, d, inverse);
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        to.v[i] = multiply_add(length, own.direction[q].v[i], to.v[i]);
        left.v[i] = multiply_add(-length, own.product[q].v[i], left.v[i]);
        own.product[q].v[i] = inverse.v[i] * left.v[i];
        own.sum = multiply_add(left.v[i], own.product[q].v[i], own.sum);
      }
      store_quad(x(lane, q), to);
      store_quad(residual(lane, q), left);
    }
    own.done = pass == systems.steps;  // the energy stays that of which the last length was made
  }

  RECFUSE_DEVICE void turn(Lane& own, int) const {
    if (own.done) return;
    const float share = own.sum / own.energy;
    RECFUSE_UNROLL
    for (int q = 0; q < kQuads; ++q) {
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        own.direction[q].v[i] = multiply_add(share, own.direction[q].v[i], own.product[q].v[i]);
      }
    }
    own.energy = own.sum;
    own.done = !(own.energy > own.least);
  }
};

/// Rows of `order`, each by `kTeam` warps.
template <class Row, int kTeam>
struct CgRows {
  static constexpr int kThreads = Row::kQuads > 8 ? 128 : 256, kWarps = kThreads / kWarp;
  static constexpr int kMembers = kTeam < kWarps ? kTeam : kWarps, kAtOnce = kWarps / kMembers;
  CgSystems systems;
  const std::int32_t* order;
  std::int64_t n;
  int n_blocks;

  static std::size_t shared_bytes() {
    return (kWarps * Row::kVectors + (kMembers > 1 ? kWarps * Row::kSums : 0)) * sizeof(float);
  }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    typename Block::template PerThread<typename Row::Lane> lanes(block);
    auto* const vectors = static_cast<float*>(static_cast<void*>(block.shared()));
    float* const sums = vectors + kWarps * Row::kVectors;
    for (std::int64_t base = static_cast<std::int64_t>(block.x()) * kAtOnce; base < n;
         base += static_cast<std::int64_t>(n_blocks) * kAtOnce) {
      const auto each_row = [&](const auto& body) {
        block.each_warp([&](int warp) {
          const std::int64_t at = base + warp / kMembers;
          if (at < n) body(warp, Row(systems, order[at], vectors + warp * Row::kVectors));
        });
      };
      each_row([&](int warp, const Row& row) {
        block.each_lane(warp, [&](int thread, int lane) { row.begin(lanes[thread], lane); });
      });
      for (int pass = 0; pass <= systems.steps; ++pass) {
        each_row([&](int warp, const Row& row) {
          row.add_entries(block, warp, lanes, pass == 0, row.first, row.last, warp % kMembers, kMembers);
        });
        if (kMembers > 1) {
          block.each_thread(
              [&](int thread) { Row::show(lanes[thread], thread % kWarp, sums + thread / kWarp * Row::kSums); });
          block.each_thread(
              [&](int thread) { Row::template gather<float>(lanes[thread], thread % kWarp, sums, kMembers); });
        }
        each_row([&](int warp, const Row& row) { row.advance(block, warp, lanes, pass); });
      }
      each_row([&](int warp, const Row& row) {
        block.each_lane(warp, [&](int thread, int lane) {
          if (warp % kMembers == 0) row.end(lanes[thread], lane);
        });
      });
    }
  }
};

/// The sums of a pass over parts of long rows.
template <class Row>
struct CgPass {
  static constexpr int kThreads = Row::kQuads > 8 ? 128 : 256, kWarps = kThreads / kWarp;
  CgSystems systems;
  CgStates states;
  const Part* parts;
  const std::int32_t* places;  // of the part's row in `order`
  const std::int32_t* order;
  int pass;
  float* sums;  // (parts, kSums)

  static std::size_t shared_bytes() { return kWarps * (Row::kVectors + Row::kSums) * sizeof(float); }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    typename Block::template PerThread<typename Row::Lane> lanes(block);
    auto* const vectors = static_cast<float*>(static_cast<void*>(block.shared()));
    float* const shared = vectors + kWarps * Row::kVectors;
    const Part part = parts[block.x()];
    const std::int64_t place = places[block.x()];
    block.each_warp([&](int warp) {
      const Row row(systems, order[place], vectors + warp * Row::kVectors);
      block.each_lane(warp, [&](int thread, int lane) { row.load_state(lanes[thread], lane, pass, states, place); });
      row.add_entries(block, warp, lanes, pass == 0, part.first, part.last, warp, kWarps);
    });
    block.each_thread(
        [&](int thread) { Row::show(lanes[thread], thread % kWarp, shared + thread / kWarp * Row::kSums); });
    block.each_thread([&](int thread) {
      if (thread >= kWarp) return;
      Row::template gather<float>(lanes[thread], thread, shared, kWarps);
      Row::show(lanes[thread], thread, sums + static_cast<std::int64_t>(block.x()) * Row::kSums);
    });
  }
};

/// What follows from them, a warp a row.
template <class Row>
struct CgAdvance {
  static constexpr int kThreads = kWarp;
  CgSystems systems;
  CgStates states;
  const std::int32_t* order;
  const std::int64_t* part_bounds;  // of row at in `order`
  const float* sums;
  int pass;

  static std::size_t shared_bytes() { return Row::kVectors * sizeof(float); }

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
    typename Block::template PerThread<typename Row::Lane> lanes(block);
    const std::int64_t place = block.x(), first = part_bounds[place];
    const Row row(systems, order[place], static_cast<float*>(static_cast<void*>(block.shared())));
    block.each_warp([&](int warp) {
      block.each_lane(warp, [&](int thread, int lane) {
        row.load_state(lanes[thread], lane, pass, states, place);
        Row::template gather<double>(lanes[thread], lane, sums + first * Row::kSums, part_bounds[place + 1] - first);
      });
      row.advance(block, warp, lanes, pass);
      block.each_lane(warp, [&](int thread, int lane) { row.store_state(lanes[thread], lane, states, place); });
    });
  }
};

}  // namespace recfuse::cuda
