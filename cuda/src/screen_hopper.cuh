// The scan of compute capability 9.0: 256 queries, a tile of 128 items after the other. One thread loads slabs; two
// groups of warps multiply a half of the queries each, straight from shared memory, and take turns, so that one looks
// at its sums while the matrix units work for the other.
//
// What may rank is noted in shared memory, and becomes candidates when enough has come together: asking for an id, a
// filter and a slot takes a microsecond, for one item or for a hundred. All warps do it at once, for a group that waits
// makes the other one wait.
#pragma once

#include <cstdint>

#include "crew.cuh"
#include "scan.cuh"
#include "tile_image.cuh"
#include "wgmma.cuh"

namespace recfuse::cuda {

/// `kTileBits`: how many bits a note has for its tile. Tests shrink it.
template <int kTileBits>
struct HopperScan {
  static constexpr int kGroups = 2, kBlocks = 2;  // of queries: of a block, of a group
  static constexpr int kGroupQueries = kBlocks * kProductRows;
  static constexpr int kQueries = kGroups * kGroupQueries;
  static constexpr int kThreads = (1 + kGroups) * kGroupThreads;
  static_assert(kTileItems == kProductColumns);

  Scan scan;
  std::int64_t first_tile, last_tile;  // of this pass
  std::int64_t tiles_per_block;

  template <class Block>
  RECFUSE_DEVICE void operator()(Block& block) const {
#if RECFUSE_HOPPER
    using TheCrew = Crew<Block>;
    const std::int64_t first = first_tile + block.y() * tiles_per_block;
    const std::int64_t end = first + tiles_per_block < last_tile ? first + tiles_per_block : last_tile;
    if (first >= end) return;
    auto& shared = *reinterpret_cast<Shared*>(block.shared() + kRingBytes);
    const Ring ring(scan.tiles.n_slabs);
    block.each_thread([&](int thread) {
      if (thread != 0) return;
      TheCrew::require_alignment(block.shared());
      start<TheCrew>(shared);
    });
    TheCrew::template run<kGroups>(
        block, [&](auto& loader) { load(block, loader, ring, shared, first, end); },
        [&](auto& group) { multiply_and_collect(block, group, ring, shared, first, end); });
#endif
  }

 private:
  static constexpr int kQueryBytes = kQueries * kRowBytes, kItemBytes = kTileItems * kRowBytes;  // of a slab
  static constexpr int kRingBytes = 12 * kItemBytes;
  static constexpr int kMostStages = kRingBytes / kItemBytes - kQueryBytes / kItemBytes;
  static constexpr int kMostResident = 4;  // slabs of queries that stay in shared memory for the whole scan
  static constexpr int kMostInTurns = 2;  // slabs of a tile where groups take turns: stages hold one for each, and more

  /// How shared memory is used: slabs of queries that stay, then stages of a slab of items, and of queries where those
  /// do not stay.
  struct Ring {
    bool resident, in_turns;
    int n_slabs, n_stages;

    RECFUSE_DEVICE explicit Ring(int slabs)
        : resident(slabs <= kMostResident), in_turns(slabs <= kMostInTurns), n_slabs(slabs) {
      n_stages = (kRingBytes - first_stage()) / stage_bytes();
    }
    RECFUSE_DEVICE int first_stage() const { return resident ? n_slabs * kQueryBytes : 0; }
    RECFUSE_DEVICE int stage_bytes() const { return kItemBytes + (resident ? 0 : kQueryBytes); }
    RECFUSE_DEVICE int items(int stage) const { return first_stage() + stage * stage_bytes(); }
    RECFUSE_DEVICE int queries(int slab, int stage) const {
      return resident ? slab * kQueryBytes : items(stage) + kItemBytes;
    }
  };
  /// Where a role is in the ring.
  struct Place {
    int stage = 0, round = 0;
    RECFUSE_DEVICE void advance(int n_stages) {
      if (++stage < n_stages) return;
      stage = 0;
      ++round;
    }
  };

  // A part of a thread's sums is looked at together.
  static constexpr int kPartSums = 8;
  static constexpr int kRowParts = kTileItems / 4 / kPartSums;  // four lanes have a row
  static constexpr int kParts = 2 * kBlocks * kRowParts;
  static constexpr int kRoom = 512;  // of a warp
  static constexpr int kMostOfPart = kPartSums * kWarp;
  static constexpr int kEnough = 128;  // notes of a warp that call all others to settle theirs
  static constexpr int kTooFew = 48;   // to follow a call
  static constexpr int kAtOnce = 4;    // notes of a lane whose waiting times overlap
  static_assert(kRoom - kMostOfPart >= kEnough);

  /// A sum that may rank: its tile, counted from the block's first and without what exceeds kTileBits; its row of the
  /// warp's 32; its column.
  struct alignas(8) Note {
    std::uint32_t place;
    float sum;
  };
  static constexpr int kColumnBits = 7, kRowBits = 5;
  static_assert(kColumnBits + kRowBits + kTileBits <= 32);
  static constexpr std::uint32_t kTileMask = (1U << kTileBits) - 1;
  static_assert(1 << kColumnBits == kTileItems && 1 << kRowBits == 16 * kBlocks);

  struct Shared {
    Barrier queries;             // are there
    Barrier full[kMostStages];   // the loader has filled it
    Barrier empty[kMostStages];  // all warps have multiplied it
    Barrier issued[kGroups];     // the products of a tile, nearly done: the other group's turn
    int calls;
    Note notes[kGroups * kGroupWarps][kRoom];
  };

 public:
  static constexpr std::size_t kSharedBytes = kRingBytes + sizeof(Shared);
  static_assert(kSharedBytes <= 227 << 10);

 private:
  template <class TheCrew>
  RECFUSE_DEVICE void start(Shared& shared) const {
    TheCrew::start(shared.queries, 1);
    for (int stage = 0; stage < kMostStages; ++stage) {
      TheCrew::start(shared.full[stage], 1);
      TheCrew::start(shared.empty[stage], kGroups * kGroupWarps);
    }
    for (int group = 0; group < kGroups; ++group) TheCrew::start(shared.issued[group], kGroupWarps);
    shared.calls = 0;
    TheCrew::publish_barriers();
  }

  template <class Block, class Loader>
  RECFUSE_DEVICE void load(Block& block, Loader& loader, const Ring& ring, Shared& shared, std::int64_t first,
                           std::int64_t end) const {
    const auto* const queries =
        reinterpret_cast<const char*>(scan.queries.image) + std::int64_t{block.x()} * ring.n_slabs * kQueryBytes;
    const auto* items = reinterpret_cast<const char*>(scan.tiles.image) + first * ring.n_slabs * kItemBytes;
    if (ring.resident) {
      loader.expect(shared.queries, ring.n_slabs * kQueryBytes);
      for (int slab = 0; slab < ring.n_slabs; ++slab) {
        loader.copy(block.shared() + ring.queries(slab, 0), queries + slab * kQueryBytes, kQueryBytes, shared.queries);
      }
    }
    Place at;
    for (std::int64_t tile = first; tile < end; ++tile) {
      for (int slab = 0; slab < ring.n_slabs; ++slab) {
        Barrier& full = shared.full[at.stage];
        loader.wait(shared.empty[at.stage], at.round - 1);
        loader.expect(full, ring.stage_bytes());
        loader.copy(block.shared() + ring.items(at.stage), items, kItemBytes, full);
        if (!ring.resident) {
          loader.copy(block.shared() + ring.queries(slab, at.stage), queries + slab * kQueryBytes, kQueryBytes, full);
        }
        items += kItemBytes;
        at.advance(ring.n_stages);
      }
    }
  }

  struct Sums {
    ProductSums block[kBlocks];
  };
  struct Least {
    QueryInGroup query;          // of row `lane` of the warp's
    float own;                   // of the same
    float of_rows[2 * kBlocks];  // of the rows that the thread has sums of
  };

  template <class Block, class Group>
  RECFUSE_DEVICE void multiply_and_collect(Block& block, Group& group, const Ring& ring, Shared& shared,
                                           std::int64_t first, std::int64_t end) const {
    typename Group::template PerThread<Sums> sums(group);
    typename Group::template PerThread<Least> least(group);
    typename Group::template PerWarp<int> n_notes(group, 0), calls(group, 0);
    if (ring.resident) group.wait(shared.queries, 0);
    Place at;
    for (std::int64_t tile = first; tile < end; ++tile) {
      const int turn = static_cast<int>(tile - first);
      if (ring.in_turns) group.wait(shared.issued[1 - group.index()], group.index() == 0 ? turn - 1 : turn);
      multiply_tile(block, group, ring, shared, at, sums);
      if (ring.in_turns) group.arrive(shared.issued[group.index()]);
      find_least(block, group, tile, least);  // while the matrix units work
      finish_tile(group, ring, shared, at, sums);
      spread_least(group, least);
      collect(block, group, shared, first, tile, tile + 1 == end, sums, least, n_notes, calls);
    }
  }

  /// All products of a tile; at most the last four are not done yet.
  template <class Block, class Group, class PerThread>
  RECFUSE_DEVICE void multiply_tile(Block& block, Group& group, const Ring& ring, Shared& shared, Place& at,
                                    PerThread& sums) const {
    const std::uint32_t base = group.address(block.shared());
    pin(group, sums);
    int before = 0;
    for (int slab = 0; slab < ring.n_slabs; ++slab) {
      group.wait(shared.full[at.stage], at.round);
      const std::uint64_t a = operand_at(
          base + static_cast<std::uint32_t>(ring.queries(slab, at.stage) + group.index() * kGroupQueries * kRowBytes));
      const std::uint64_t b = operand_at(base + static_cast<std::uint32_t>(ring.items(at.stage)));
      RECFUSE_UNROLL
      for (int half = 0; half < 2; ++half) {
        group.begin_products();
        RECFUSE_UNROLL
        for (int k = half * 2; k < half * 2 + 2; ++k) {
          RECFUSE_UNROLL
          for (int i = 0; i < kBlocks; ++i) {
            group.multiply([&](int thread) -> ProductSums& { return sums[thread].block[i]; },
                           a + static_cast<std::uint64_t>((k * kProductBytes + i * kProductRows * kRowBytes) / 16),
                           b + static_cast<std::uint64_t>(k * kProductBytes / 16), slab + k > 0);
          }
        }
        group.end_products();
        group.template wait_for_products<1>();
        if (half == 0 && slab > 0) group.arrive(shared.empty[before]);
      }
      before = at.stage;
      at.advance(ring.n_stages);
    }
  }

  template <class Group, class PerThread>
  RECFUSE_DEVICE void finish_tile(Group& group, const Ring& ring, Shared& shared, const Place& at,
                                  PerThread& sums) const {
    group.template wait_for_products<0>();
    pin(group, sums);
    group.arrive(shared.empty[at.stage == 0 ? ring.n_stages - 1 : at.stage - 1]);
  }

  template <class Group, class PerThread>
  RECFUSE_DEVICE void pin(Group& group, PerThread& sums) const {
    RECFUSE_UNROLL
    for (int i = 0; i < kBlocks; ++i) group.pin([&](int thread) -> ProductSums& { return sums[thread].block[i]; });
  }

  template <class Block>
  RECFUSE_DEVICE static std::int64_t query_of(const Block& block, int group, int row) {
    return std::int64_t{block.x()} * kQueries + group * kGroupQueries + row;
  }

  /// Every lane for one row of its warp.
  template <class Block, class Group, class PerThread>
  RECFUSE_DEVICE void find_least(Block& block, Group& group, std::int64_t tile, PerThread& least) const {
    group.each_warp([&](int warp) {
      group.each_lane(warp, [&](int thread, int lane) {
        const std::int64_t q = query_of(block, group.index(), row_in_group(warp, lane));
        least[thread].own = scan.least_sum(q, tile, least[thread].query);
      });
    });
  }

  template <class Group, class PerThread>
  RECFUSE_DEVICE void spread_least(Group& group, PerThread& least) const {
    group.each_warp([&](int warp) {
      group.each_lane(warp, [&](int thread, int lane) {
        RECFUSE_UNROLL
        for (int row = 0; row < 2 * kBlocks; ++row) {
          least[thread].of_rows[row] =
              group.from_lane(warp, 8 * row + lane / 4, [&](int other) { return least[other].own; });
        }
      });
    });
  }

  /// Sum `i` of part `part`, and what a note says of where it is beside the tile.
  RECFUSE_DEVICE static float& sum_of(Sums& sums, int part, int i) {
    const int row = part / kRowParts, j = part % kRowParts * (kPartSums / 2) + i / 2;
    return sums.block[row / 2].value[4 * j + 2 * (row % 2) + i % 2];
  }
  RECFUSE_DEVICE static std::uint32_t place_of(int lane, int part, int i) {
    const int row = part / kRowParts, j = part % kRowParts * (kPartSums / 2) + i / 2;
    return static_cast<std::uint32_t>((8 * row + lane / 4) << kColumnBits | product_column(lane, j, i % 2));
  }

  /// Notes what may rank. Parts for which there is no room come after those that made it scarce are settled.
  template <class Block, class Group, class SumsOf, class LeastOf, class PerWarp>
  RECFUSE_DEVICE void collect(Block& block, Group& group, Shared& shared, std::int64_t first, std::int64_t tile,
                              bool last, SumsOf& sums, LeastOf& least, PerWarp& n_notes, PerWarp& calls) const {
    const auto nth = static_cast<std::uint32_t>(tile - first);
    const bool must_settle = last || (nth & kTileMask) == kTileMask;
    group.each_warp([&](int warp) {
      Note* const notes = shared.notes[group.index() * kGroupWarps + warp];
      int n = n_notes[warp];
      std::uint32_t parts =
          group.any_bits(warp, [&](int thread, int) { return parts_with_any(sums[thread], least[thread]); });
      do {
        RECFUSE_UNROLL
        for (int part = 0; part < kParts; ++part) {
          if ((parts >> part & 1U) == 0 || n > kRoom - kMostOfPart) continue;
          parts &= ~(1U << part);
          n = note_part(group, warp, part, (nth & kTileMask) << (kColumnBits + kRowBits), sums, least, notes, n);
        }
        if (parts != 0 || is_called(group, warp, shared, n, calls[warp]) || must_settle) {
          group.sync_warp(warp);
          settle(block, group, warp, tile - (nth & kTileMask), notes, n);
          group.sync_warp(warp);
          n = 0;
        }
      } while (parts != 0);
      n_notes[warp] = n;
    });
  }

  RECFUSE_DEVICE static std::uint32_t parts_with_any(Sums& sums, const Least& least) {
    std::uint32_t parts = 0;
    RECFUSE_UNROLL
    for (int part = 0; part < kParts; ++part) {
      float most = sum_of(sums, part, 0);
      RECFUSE_UNROLL
      for (int i = 1; i < kPartSums; ++i) most = std::fmax(most, sum_of(sums, part, i));
      if (most >= least.of_rows[part / kRowParts]) parts |= 1U << part;
    }
    return parts;
  }

  template <class Group, class SumsOf, class LeastOf>
  RECFUSE_DEVICE int note_part(Group& group, int warp, int part, std::uint32_t place, SumsOf& sums, LeastOf& least,
                               Note* notes, int n) const {
    RECFUSE_UNROLL
    for (int i = 0; i < kPartSums; ++i) {
      const std::uint32_t lanes = group.ballot(warp, [&](int thread, int) {
        return sum_of(sums[thread], part, i) >= least[thread].of_rows[part / kRowParts];
      });
      if (lanes == 0) continue;
      group.each_lane(warp, [&](int thread, int lane) {
        if ((lanes >> lane & 1U) == 0) return;
        const std::uint32_t before = lanes & ((1U << lane) - 1);
        notes[n + ones_in(before)] = {place | place_of(lane, part, i), sum_of(sums[thread], part, i)};
      });
      n += ones_in(lanes);
    }
    return n;
  }

  /// Whether to settle now; a warp with enough notes calls the others.
  template <class Group>
  RECFUSE_DEVICE bool is_called(Group& group, int warp, Shared& shared, int n, int& answered) const {
    const bool calling = n >= kEnough;
    const int calls = group.add_atomically(warp, &shared.calls, calling ? 1 : 0);
    const bool called = calls != answered && n >= kTooFew;
    answered = calls + (calling ? 1 : 0);
    return calling || called;
  }

  /// From notes to candidates. Tiles of notes count from `tile`.
  template <class Block, class Group>
  RECFUSE_DEVICE void settle(Block& block, Group& group, int warp, std::int64_t tile, const Note* notes, int n) const {
    const auto tile_of = [&](const Note& note) { return tile + (note.place >> (kColumnBits + kRowBits)); };
    const auto query = [&](const Note& note) {
      const int row = static_cast<int>(note.place >> kColumnBits) & (16 * kBlocks - 1);
      return query_of(block, group.index(), row_in_group(warp, row));
    };
    for (int first = 0; first < n; first += kAtOnce * kWarp) {
      group.each_lane(warp, [&](int, int lane) {
        std::int32_t ids[kAtOnce];
        int slots[kAtOnce];
        const Note* const own = notes + first + lane;
        const int n_own = n - first - lane;  // every kWarp-th of them is the lane's
        RECFUSE_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          ids[i] = -1;
          if (i * kWarp >= n_own) continue;
          const Note& note = own[i * kWarp];
          ids[i] = scan.tiles.ids[tile_of(note) * kTileItems + (note.place & (kTileItems - 1))];
        }
        RECFUSE_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          slots[i] = scan.candidates.capacity;
          if (ids[i] < 0) continue;
          const std::int64_t q = query(own[i * kWarp]);
          if (scan.admits(q, ids[i])) slots[i] = scan.candidates.reserve(block, q);
        }
        RECFUSE_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          if (slots[i] >= scan.candidates.capacity) continue;
          const Note& note = own[i * kWarp];
          const std::int64_t q = query(note);
          const Worth worth = scan.worth(q, tile_of(note));
          scan.candidates.write(q, slots[i], ids[i], note.sum * worth.scale, worth.bound);
        }
      });
    }
  }

  /// Of the rows of a warp: 16 of every block of 64.
  RECFUSE_DEVICE static int row_in_group(int warp, int row) { return row / 16 * kProductRows + 16 * warp + row % 16; }
};

using HopperScreen = HopperScan<20>;

}  // namespace recfuse::cuda
