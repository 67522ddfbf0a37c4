// Z' Z of a row's weighted entries on the matrix units. An element of Z, times a power of two that brings the largest
// of a strip below 2^15, is a sum of two float16, high and low: high * high + high * low + low * high is what float32
// would have but for some 2^-22. A block's warps share the squares of 16 x 16 of the lower triangle; strips of entries
// arrive in shared memory while others are multiplied.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "als_system.cuh"

namespace recfuse::cuda {

constexpr int kSquare = 16;
constexpr int kWarps = kSystemThreads / kWarp;

/// How strips lie in shared memory.
struct StripShape {
  static constexpr int kStages = 3, kIdStages = 8;
  SystemShape system;

  RECFUSE_BOTH int squares() const { return (system.size + kSquare - 1) / kSquare; }
  RECFUSE_BOTH int columns() const { return squares() * kSquare; }
  RECFUSE_BOTH int entries() const { return columns() <= 128 ? 32 : 16; }
  /// 16 bytes more than the columns need, so that eight rows lie in different banks.
  RECFUSE_BOTH int half_stride() const { return columns() + 8; }
  RECFUSE_BOTH int row_floats() const { return entries() * system.padded(); }
  RECFUSE_BOTH std::size_t bytes() const {
    const auto n = static_cast<std::size_t>(entries());
    return static_cast<std::size_t>(kStages * row_floats()) * sizeof(float) +
           2 * n * static_cast<std::size_t>(half_stride()) * sizeof(half_bits) + 2 * kIdStages * n * sizeof(float) +
           2 * n * sizeof(float) + 4 * sizeof(std::uint32_t);  // a multiple of 16
  }
};

/// The most squares that a warp has, for systems up to so many unknowns; 0: none do it here.
RECFUSE_BOTH int squares_of_warp(int size) { return size <= 64 ? 2 : size <= 128 ? 5 : size <= 256 ? 17 : 0; }

/// Blocks that hide each other's waiting, as many as shared memory and registers leave room for.
RECFUSE_BOTH constexpr int blocks_at_once(int squares) { return squares <= 5 ? 2 : 1; }

/// `kSquares`: squares_of_warp(), at least.
template <int kSquares>
class Products {
 public:
  RECFUSE_DEVICE Products(const SystemShape& system, const RowsOnDevice& from, char* shared)
      : shape_{system}, from_(from) {
    raw_ = reinterpret_cast<float*>(shared);
    high_ = reinterpret_cast<half_bits*>(raw_ + StripShape::kStages * shape_.row_floats());
    low_ = high_ + shape_.entries() * shape_.half_stride();
    ids_ = reinterpret_cast<std::int32_t*>(low_ + shape_.entries() * shape_.half_stride());
    values_ = reinterpret_cast<float*>(ids_ + StripShape::kIdStages * shape_.entries());
    roots_ = values_ + StripShape::kIdStages * shape_.entries();
    targets_ = roots_ + shape_.entries();
    peaks_ = reinterpret_cast<std::uint32_t*>(targets_ + shape_.entries());
    while (1 << log_quads_ < shape_.columns() / kTile) ++log_quads_;
  }

  /// Of entries [first, last): element(row, column, sum) for every element of the lower tiles, right(column, sum) for
  /// b, when shared memory is free again. A diagonal element below least(bound) has lost too much of its small terms.
  template <class Block, class Element, class Right, class Least>
  RECFUSE_DEVICE void sum(Block& block, std::int64_t first, std::int64_t last, const Element& element,
                          const Right& right, const Least& least) {
    typename Block::template PerThread<State> state(block);
    const int strip = shape_.entries();
    const auto n_strips = static_cast<int>((last - first + strip - 1) / strip);
    first_ = first;
    last_ = last;
    start(block, n_strips, state);
    RECFUSE_KEEP_LOOP
    for (int at = 0; at < n_strips; ++at) {
      // Strip `at` is here, and so are the ids of at + 2.
      block.template wait_for_copies<1>();
      copy_rows(block, at + 2, n_strips);
      copy_ids(block, at + 4, n_strips);
      block.end_copies();
      measure(block, at, state);
      split(block, at, state);
      multiply(block, entries_of(at), state);
      // All have read them, and nobody raises them before the next barrier.
      block.each_warp([&](int warp) {
        block.each_lane(warp, [&](int thread, int) {
          if (thread < 2) peaks_[thread] = 0;
        });
      });
    }
    block.template wait_for_copies<0>();
    block.each_thread([&](int thread) { hand_out(thread, state[thread], element, right, least); });
  }

 private:
  static constexpr int kQuads = 4;  // that a thread has of a strip
  struct State {
    FragmentC sums[kSquares][2];
    Quad<float> own[kQuads];
    float right, bound;
    float down_squared;  // what a product of the strip is worth
  };
  struct Operands {
    FragmentA left[2];      // high, low
    FragmentB right[2][2];  // by columns, 8 at a time
    FragmentC sums[2];
  };
  struct alignas(8) Halves {
    half_bits v[kTile];
  };

  RECFUSE_DEVICE int entries_of(int strip) const {
    const std::int64_t left = last_ - first_ - static_cast<std::int64_t>(strip) * shape_.entries();
    return left < shape_.entries() ? static_cast<int>(left) : shape_.entries();
  }
  RECFUSE_DEVICE std::int32_t* ids(int strip) const { return ids_ + strip % StripShape::kIdStages * shape_.entries(); }
  RECFUSE_DEVICE float* values(int strip) const { return values_ + strip % StripShape::kIdStages * shape_.entries(); }
  RECFUSE_DEVICE float* raw(int strip) const { return raw_ + strip % StripShape::kStages * shape_.row_floats(); }

  template <class Block, class PerThread>
  RECFUSE_DEVICE void start(Block& block, int n_strips, PerThread& state) const {
    block.each_thread([&](int thread) {
      State& mine = state[thread];
      mine.right = 0;
      mine.bound = 0;
      RECFUSE_UNROLL
      for (int i = 0; i < kSquares; ++i) mine.sums[i][0] = mine.sums[i][1] = {{0, 0, 0, 0}};
      if (thread < 2) peaks_[thread] = 0;
      for (int strip = 0; strip < 2 && strip < n_strips; ++strip) {
        if (thread < entries_of(strip)) {
          ids(strip)[thread] = from_.ids[first_ + strip * shape_.entries() + thread];
          values(strip)[thread] = from_.values[first_ + strip * shape_.entries() + thread];
        }
      }
    });
    copy_rows(block, 0, n_strips);
    copy_ids(block, 2, n_strips);
    block.end_copies();
    copy_rows(block, 1, n_strips);
    copy_ids(block, 3, n_strips);
    block.end_copies();
  }

  template <class Block>
  RECFUSE_DEVICE void copy_ids(Block& block, int strip, int n_strips) const {
    if (strip >= n_strips) return;
    block.each_warp([&](int warp) {
      block.each_lane(warp, [&](int thread, int) {
        if (thread >= entries_of(strip)) return;
        const std::int64_t entry = first_ + static_cast<std::int64_t>(strip) * shape_.entries() + thread;
        block.copy_4(ids(strip) + thread, from_.ids + entry);
        block.copy_4(values(strip) + thread, from_.values + entry);
      });
    });
  }

  template <class Block>
  RECFUSE_DEVICE void copy_rows(Block& block, int strip, int n_strips) const {
    if (strip >= n_strips) return;
    const int n = entries_of(strip), size = from_.size;
    block.each_warp([&](int warp) {
      block.each_lane(warp, [&](int, int lane) {
        for (int entry = warp; entry < n; entry += kWarps) {
          const float* const row = from_.others + static_cast<std::int64_t>(ids(strip)[entry]) * size;
          float* const to = raw(strip) + entry * shape_.system.padded();
          if (size % kTile == 0) {
            for (int at = lane * kTile; at < size; at += kWarp * kTile) block.copy_16(to + at, row + at);
          } else {
            for (int at = lane; at < size; at += kWarp) block.copy_4(to + at, row + at);
          }
        }
      });
    });
  }

  /// What a thread has of a strip: quads of a column in entries at equal distances. f(number, entry, column).
  template <class F>
  RECFUSE_DEVICE void each_quad(int thread, const F& f) const {
    const int column = thread % (1 << log_quads_) * kTile, step = kSystemThreads >> log_quads_;
    int entry = thread >> log_quads_;
    if (column >= shape_.columns()) return;
    RECFUSE_UNROLL
    for (int number = 0; number < kQuads; ++number) {
      if (entry < shape_.entries()) f(number, entry, column);
      entry += step;
    }
  }

  /// Reads the strip, and the largest there; weights and targets.
  template <class Block, class PerThread>
  RECFUSE_DEVICE void measure(Block& block, int strip, PerThread& state) const {
    const int n = entries_of(strip);
    const float* const rows = raw(strip);
    block.each_warp([&](int warp) {
      const std::uint32_t largest = block.largest(warp, [&](int thread, int) {
        float most = 0;
        each_quad(thread, [&](int number, int entry, int column) {
          Quad<float>& quad = state[thread].own[number];
          const bool there = entry < n && column < shape_.system.padded();
          if (there) quad = load_quad(rows + entry * shape_.system.padded() + column);
          RECFUSE_UNROLL
          for (int i = 0; i < kTile; ++i) {
            quad.v[i] = there ? feature(quad.v[i], column + i) : 0.0F;
            most = larger(most, quad.v[i]);
          }
        });
        return bits_of(most);
      });
      std::uint32_t heaviest = 0;
      if (warp == 0)
        heaviest = block.largest(warp, [&](int, int lane) {
          if (lane >= n) return std::uint32_t{0};
          float weight, target;
          const float bias = rows[lane * shape_.system.padded() + shape_.system.size - 1];
          from_.terms(values(strip)[lane], from_.biases ? bias : 0.0F, weight, target);
          roots_[lane] = std::sqrt(weight);
          targets_[lane] = target;
          return bits_of(larger(0.0F, roots_[lane]));
        });
      block.each_lane(warp, [&](int, int lane) {
        if (lane != 0) return;
        block.raise_atomically(peaks_, largest);
        if (warp == 0) block.raise_atomically(peaks_ + 1, heaviest);
      });
    });
    block.each_thread([](int) {});
  }

  RECFUSE_DEVICE float feature(float value, int column) const {
    if (column >= shape_.system.size) return 0.0F;
    return from_.biases && column == shape_.system.size - 1 ? 1.0F : value;
  }
  /// NaN is the largest of all.
  RECFUSE_DEVICE static float larger(float most, float value) {
    const float size = std::fabs(value);
    return most >= size ? most : size;
  }
  RECFUSE_DEVICE static std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
  }
  RECFUSE_DEVICE static float float_of_bits(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  /// Brings the largest of a strip to [2^14, 2^15). What is beyond that overflows, and the row is solved in float64.
  RECFUSE_DEVICE float scale() const {
    const float most = float_of_bits(peaks_[0]) * float_of_bits(peaks_[1]);
    const int exponent = most < 0x1p-46F ? -46 : most < 0x1p74F ? static_cast<int>(bits_of(most) >> 23) - 127 : 74;
    return power_of_two(14 - exponent);
  }
  RECFUSE_DEVICE static float power_of_two(int exponent) {
    return float_of_bits(static_cast<std::uint32_t>(127 + exponent) << 23);
  }

  /// The strip as float16, and what it adds to b.
  template <class Block, class PerThread>
  RECFUSE_DEVICE void split(Block& block, int strip, PerThread& state) const {
    const int n = entries_of(strip), padded = shape_.system.padded();
    block.each_thread([&](int thread) {
      State& mine = state[thread];
      const float up = scale(), down = 1 / up;
      mine.down_squared = down * down;
      each_quad(thread, [&](int number, int entry, int column) {
        Halves high, low;
        const float root = entry < n ? roots_[entry] : 0.0F;
        RECFUSE_UNROLL
        for (int i = 0; i < kTile; ++i) {
          const float z = root * mine.own[number].v[i] * up;
          high.v[i] = half_of(z);
          low.v[i] = half_of(z - float_of(high.v[i]));
        }
        std::memcpy(high_ + entry * shape_.half_stride() + column, &high, sizeof high);
        std::memcpy(low_ + entry * shape_.half_stride() + column, &low, sizeof low);
      });
      // An element is off by 2^-25 of the scaled at most, beside 2^-22 of itself: where 2^23 times what that comes to
      // is more than the length of a column, it may be seen (docs/numerics.md).
      mine.bound += static_cast<float>(n) * 0x1p-4F * mine.down_squared;
      if (thread >= padded) return;
      const float* const rows = raw(strip);
      const bool is_bias = from_.biases && thread == shape_.system.size - 1;
      for (int entry = 0; entry < n; ++entry) {
        mine.right = multiply_add(targets_[entry], is_bias ? 1.0F : rows[entry * padded + thread], mine.right);
      }
    });
  }

  /// Sixteen entries at a time, in sums of their own: the matrix units cut off what they cannot hold, additions round.
  template <class Block, class PerThread>
  RECFUSE_DEVICE void multiply(Block& block, int n, PerThread& state) const {
    const int all = lower_tiles(shape_.squares()), of_warp = (all + kWarps - 1) / kWarps;
    typename Block::template PerThread<Operands> operands(block);
    block.each_warp([&](int warp) {
      const int first = warp * of_warp;
      const int here = all - first < of_warp ? all - first : of_warp;
      if (here <= 0) return;
      const TilePlace start = tile_place(first);
      RECFUSE_KEEP_LOOP  // registers are what bounds how many blocks there are
          for (int entry = 0; entry < n; entry += kSquare) {
        TilePlace place = start;
        RECFUSE_UNROLL
        for (int i = 0; i < kSquares; ++i) {
          if (i >= here) continue;
          if (i == 0 || place.column == 0) load(block, warp, entry, place.row, operands, true);
          load(block, warp, entry, place.column, operands, false);
          multiply_square(block, warp, operands, state, i);
          if (++place.column > place.row) place = {place.row + 1, 0};
        }
      }
    });
  }

  /// Entries [entry, entry + 16) of a square's columns, as the left operand or as the right one.
  template <class Block, class PerThread>
  RECFUSE_DEVICE void load(Block& block, int warp, int entry, int square, PerThread& operands, bool left) const {
    RECFUSE_UNROLL
    for (int part = 0; part < 2; ++part) {
      const half_bits* const corner = (part == 0 ? high_ : low_) + entry * shape_.half_stride() + square * kSquare;
      block.load_transposed(
          warp,
          [&](int thread) { return left ? operands[thread].left[part].pair : operands[thread].right[part][0].pair; },
          [&](int lane) {
            const int eight = lane / 8, row = lane % 8 + (left ? eight / 2 : eight % 2) * 8;
            return corner + row * shape_.half_stride() + (left ? eight % 2 : eight / 2) * 8;
          });
    }
  }

  /// The small products first.
  template <class Block, class PerThreadOperands, class PerThread>
  RECFUSE_DEVICE void multiply_square(Block& block, int warp, PerThreadOperands& operands, PerThread& state,
                                      int square) const {
    block.each_lane(warp,
                    [&](int thread, int) { operands[thread].sums[0] = operands[thread].sums[1] = {{0, 0, 0, 0}}; });
    RECFUSE_UNROLL
    for (int product = 0; product < 3; ++product) {
      const int of_left = product == 0 ? 1 : 0, of_right = product == 1 ? 1 : 0;
      RECFUSE_UNROLL
      for (int half = 0; half < 2; ++half) {
        block.multiply(
            warp, [&](int thread) -> FragmentA& { return operands[thread].left[of_left]; },
            [&](int thread) -> FragmentB& { return operands[thread].right[of_right][half]; },
            [&](int thread) -> FragmentC& { return operands[thread].sums[half]; });
      }
    }
    block.each_lane(warp, [&](int thread, int) {
      RECFUSE_UNROLL
      for (int half = 0; half < 2; ++half) {
        RECFUSE_UNROLL
        for (int i = 0; i < 4; ++i) {
          float& sum = state[thread].sums[square][half].value[i];
          sum = multiply_add(operands[thread].sums[half].value[i], state[thread].down_squared, sum);
        }
      }
    });
  }

  template <class Element, class Right, class Least>
  RECFUSE_DEVICE void hand_out(int thread, const State& mine, const Element& element, const Right& right,
                               const Least& least) const {
    const int padded = shape_.system.padded(), lane = thread % kWarp;
    const int all = lower_tiles(shape_.squares()), of_warp = (all + kWarps - 1) / kWarps;
    const int first = thread / kWarp * of_warp;
    TilePlace place = tile_place(first);
    RECFUSE_UNROLL
    for (int i = 0; i < kSquares; ++i) {
      if (i >= of_warp || first + i >= all) continue;
      RECFUSE_UNROLL
      for (int half = 0; half < 2; ++half) {
        RECFUSE_UNROLL
        for (int v = 0; v < 4; ++v) {
          const int row = place.row * kSquare + fragment_row(lane, v);
          const int column = place.column * kSquare + half * 8 + fragment_column(lane, v);
          if (row < padded && column / kTile <= row / kTile) element(row, column, mine.sums[i][half].value[v]);
        }
      }
      if (++place.column > place.row) place = {place.row + 1, 0};
    }
    if (thread < padded) right(thread, mine.right);
    if (thread == 0) least(mine.bound);
  }

  StripShape shape_;
  const RowsOnDevice& from_;
  std::int64_t first_ = 0, last_ = 0;
  int log_quads_ = 0;       // of the threads that a row of a strip takes
  float* raw_;              // (stages, entries, padded): rows of the others
  half_bits *high_, *low_;  // (entries, half_stride)
  std::int32_t* ids_;       // (id stages, entries)
  float *values_, *roots_, *targets_;
  std::uint32_t* peaks_;  // of the strip: its largest element, its largest root
};

}  // namespace recfuse::cuda
