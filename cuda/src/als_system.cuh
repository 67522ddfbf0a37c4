// A row's system A x = b, one block: built, factored and solved where the block finds it fastest. A thread works on
// tiles of 4 x 4 elements in registers; only the lower triangle of A exists, and b is one more row of it, so that
// factoring A solves L z = b on the way.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "block.cuh"
#include "recfuse/confidence.hpp"

namespace recfuse::cuda {

constexpr int kTile = 4;
constexpr int kSystemThreads = 256;

/// In float32 fused, as on the CPU's vector units; in float64 as that adds: product, sum.
RECFUSE_DEVICE float multiply_add(float a, float b, float c) {
#if defined(__CUDACC__)
  return fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
RECFUSE_DEVICE double multiply_add(double a, double b, double c) { return a * b + c; }

/// Four elements of a row that come and go at once.
template <class Real>
struct alignas(16) Quad {
  Real v[kTile];
};

template <class Real>
RECFUSE_DEVICE Quad<Real> load_quad(const Real* from) {
#if defined(__CUDACC__)
  return *reinterpret_cast<const Quad<Real>*>(from);
#else
  Quad<Real> quad;
  std::memcpy(quad.v, from, sizeof(quad.v));
  return quad;
#endif
}

template <class Real>
RECFUSE_DEVICE void store_quad(Real* to, const Quad<Real>& quad) {
#if defined(__CUDACC__)
  *reinterpret_cast<Quad<Real>*>(to) = quad;
#else
  std::memcpy(to, quad.v, sizeof(quad.v));
#endif
}

/// How a system lies in memory: rows of whole tiles, b behind them. Padding has ones on the diagonal.
struct SystemShape {
  int size;  // unknowns

  RECFUSE_BOTH int tiles() const { return (size + kTile - 1) / kTile; }
  RECFUSE_BOTH int padded() const { return tiles() * kTile; }
  RECFUSE_BOTH int stride() const { return padded() + kTile; }  // rows of one column in different banks
  RECFUSE_BOTH int elements() const { return (padded() + 1) * stride(); }
  /// Behind b: below which length of a column a part has lost too much.
  RECFUSE_BOTH int least_place() const { return padded() * stride() + padded(); }
  /// Entries that are added at a time.
  RECFUSE_BOTH int strip() const { return padded() <= 256 ? 32 : padded() <= 512 ? 16 : 4; }
};

RECFUSE_BOTH int lower_tiles(int tiles) { return tiles * (tiles + 1) / 2; }

/// Tile t of a lower triangle, by rows.
struct TilePlace {
  int row, column;
};
RECFUSE_DEVICE TilePlace tile_place(int t) {
  int row = static_cast<int>((std::sqrt(8.0F * static_cast<float>(t) + 1.0F) - 1.0F) / 2.0F);
  while (row * (row + 1) / 2 > t) --row;
  while ((row + 1) * (row + 2) / 2 <= t) ++row;
  return {row, t - row * (row + 1) / 2};
}

/// What the rows of a side are made from: their entries, and the table of the other side's unknowns.
struct RowsOnDevice {
  const std::int64_t* indptr;
  const std::int32_t* ids;  // null: entry j is row j of the table, of weight 1, towards nothing
  const float* values;
  const float* others;  // (n, size): factors and, where there are biases, the bias behind them
  int size;
  bool implicit, biases;
  double alpha, mean;

  /// An element of the features of an entry: that which belongs to the row's bias is 1.
  RECFUSE_DEVICE float feature(std::int64_t other, int column) const {
    if (biases && column == size - 1) return 1.0F;
    return others[other * size + column];
  }
  RECFUSE_DEVICE std::int64_t other(std::int64_t entry) const { return ids == nullptr ? entry : ids[entry]; }

  template <class Real>
  RECFUSE_DEVICE void terms(std::int64_t entry, Real& weight, Real& target) const {
    weight = 1;
    target = 0;
    if (ids == nullptr) return;
    const float bias = biases ? others[static_cast<std::int64_t>(ids[entry]) * size + size - 1] : 0.0F;
    terms(static_cast<Real>(values[entry]), bias, weight, target);
  }
  /// Of an entry's value and the bias of what it names.
  template <class Real>
  RECFUSE_DEVICE void terms(Real value, float bias, Real& weight, Real& target) const {
    weight = 1;
    if (implicit) {
      weight = extra_confidence(value, static_cast<Real>(alpha));
      target = preference(value) * confidence(value, static_cast<Real>(alpha));
    } else if (biases) {
      target = static_cast<Real>(static_cast<double>(value) - mean) - static_cast<Real>(bias);
    } else {
      target = value;
    }
  }
};

/// A system in the hands of a block. The matrix may be in shared memory or not; the rest is.
template <class Real>
class System {
 public:
  /// Why a row has no solution in this precision.
  static constexpr int kSolved = 0, kSmallPivot = 1, kNotFinite = 2;

  static RECFUSE_BOTH std::size_t matrix_bytes(const SystemShape& shape) {
    return static_cast<std::size_t>(shape.elements()) * sizeof(Real);
  }
  /// Beside the matrix; `strips`: with what add() needs.
  static RECFUSE_BOTH std::size_t other_bytes(const SystemShape& shape, bool strips) {
    const auto padded = static_cast<std::size_t>(shape.padded()), strip = static_cast<std::size_t>(shape.strip());
    const std::size_t of_strips = strips ? 2 * strip * sizeof(Real) + strip * padded * sizeof(float) : 0;
    return (3 * padded + kTile * kTile) * sizeof(Real) + kTile * sizeof(float) + of_strips;
  }

  RECFUSE_DEVICE System(const SystemShape& shape, Real* matrix, char* other) : shape_(shape), matrix_(matrix) {
    const int strip = shape.strip(), padded = shape.padded();
    diagonal_ = static_cast<Real*>(static_cast<void*>(other));
    inverse_ = diagonal_ + padded;
    solution_ = inverse_ + padded;
    panel_ = solution_ + padded;
    status_ = static_cast<int*>(static_cast<void*>(panel_ + kTile * kTile));
    least_ = static_cast<float*>(static_cast<void*>(status_ + 1));
    weights_ = static_cast<Real*>(static_cast<void*>(status_ + kTile));
    targets_ = weights_ + strip;
    rows_ = static_cast<float*>(static_cast<void*>(targets_ + strip));
  }

  RECFUSE_DEVICE const Real* matrix() const { return matrix_; }
  RECFUSE_DEVICE int status() const { return *status_; }
  RECFUSE_DEVICE Real solution(int j) const { return solution_[j]; }

  /// By one thread: a system that others fill, and that is not solved where a diagonal element is below `least`.
  RECFUSE_DEVICE void begin(float least) const {
    *status_ = kSolved;
    *least_ = least;
  }
  RECFUSE_DEVICE void put(int row, int column, Real value) const { matrix_[row * shape_.stride() + column] = value; }
  RECFUSE_DEVICE void put_right(int column, Real value) const { rhs()[column] = value; }

  /// A = what element(row, column) says, of the lower tiles; b = right(column).
  template <class Block, class Element, class Right>
  RECFUSE_DEVICE void begin(Block& block, float least, const Element& element, const Right& right) {
    block.each_thread([&](int thread) {
      if (thread == 0) begin(least);
      for (int t = thread; t < lower_tiles(shape_.tiles()); t += kSystemThreads) {
        const TilePlace place = tile_place(t);
        for (int i = 0; i < kTile; ++i) {
          const int row = place.row * kTile + i;
          for (int j = 0; j < kTile; ++j) {
            const int column = place.column * kTile + j;
            matrix_[row * shape_.stride() + column] = element(row, column);
          }
        }
      }
      for (int c = thread; c < shape_.padded(); c += kSystemThreads) rhs()[c] = right(c);
    });
  }

  /// Adds entries [first, last). From: RowsOnDevice, or what has its other(), feature() and terms().
  template <class Block, class From>
  RECFUSE_DEVICE void add(Block& block, const From& from, std::int64_t first, std::int64_t last) {
    const int strip = shape_.strip();
    for (; first < last; first += strip) {
      const int n = last - first < strip ? static_cast<int>(last - first) : strip;
      block.each_thread([&](int thread) { gather(from, first, n, thread); });
      block.each_thread([&](int thread) { add_strip(n, thread); });
    }
  }

  /// A = L L', b = L^-1 b. False, and status() says so, where a pivot is below `least` of its diagonal element.
  template <class Block>
  RECFUSE_DEVICE bool factor(Block& block, Real least) {
    block.each_thread([&](int thread) {
      for (int j = thread; j < shape_.padded(); j += kSystemThreads) {
        diagonal_[j] = matrix_[j * shape_.stride() + j];
        if (j < shape_.size && !(diagonal_[j] >= *least_)) block.add_atomically(status_, kSmallPivot);
      }
    });
    if (*status_ != kSolved) {
      block.each_thread([&](int thread) {
        if (thread == 0) *status_ = kSmallPivot;
      });
      return false;
    }
    for (int k = 0; k < shape_.tiles(); ++k) {
      block.each_thread([&](int thread) { factor_panel(k, least, thread); });
      if (*status_ != kSolved) return false;
      block.each_thread([&](int thread) { update_behind(k, thread); });
    }
    return true;
  }

  /// x = L'^-1 b, after factor(). status() says whether it fits in float32.
  template <class Block>
  RECFUSE_DEVICE void substitute(Block& block) {
    for (int k = shape_.tiles() - 1; k >= 0; --k) {
      block.each_thread([&](int thread) { substitute_tile(k, thread); });
    }
    block.each_thread([&](int thread) {
      for (int j = thread; j < shape_.size; j += kSystemThreads) {
        const auto x = static_cast<float>(solution_[j]);
        if (!(x - x == 0)) block.add_atomically(status_, kNotFinite);
      }
    });
  }

 private:
  RECFUSE_DEVICE Real* rhs() const { return matrix_ + shape_.padded() * shape_.stride(); }

  template <class From>
  RECFUSE_DEVICE void gather(const From& from, std::int64_t first, int n, int thread) {
    const int padded = shape_.padded();
    for (int i = thread; i < n * padded; i += kSystemThreads) {
      const int entry = i / padded, column = i % padded;
      rows_[i] = column < shape_.size ? from.feature(from.other(first + entry), column) : 0.0F;
    }
    if (thread < n) from.terms(first + thread, weights_[thread], targets_[thread]);
  }

  RECFUSE_DEVICE void add_strip(int n, int thread) {
    const int padded = shape_.padded(), stride = shape_.stride();
    for (int t = thread; t < lower_tiles(shape_.tiles()); t += kSystemThreads) {
      const TilePlace place = tile_place(t);
      Real* const tile = matrix_ + place.row * kTile * stride + place.column * kTile;
      Quad<Real> sum[kTile];
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) sum[i] = load_quad(tile + i * stride);
      for (int entry = 0; entry < n; ++entry) {
        const Quad<float> left = load_quad(rows_ + entry * padded + place.row * kTile),
                          right = load_quad(rows_ + entry * padded + place.column * kTile);
        const Real weight = weights_[entry];
        RECFUSE_UNROLL
        for (int i = 0; i < kTile; ++i) {
          const Real scaled = weight * static_cast<Real>(left.v[i]);
          RECFUSE_UNROLL
          for (int j = 0; j < kTile; ++j) {
            sum[i].v[j] = multiply_add(scaled, static_cast<Real>(right.v[j]), sum[i].v[j]);
          }
        }
      }
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) store_quad(tile + i * stride, sum[i]);
    }
    for (int c = thread; c < padded; c += kSystemThreads) {
      Real sum = rhs()[c];
      for (int entry = 0; entry < n; ++entry) {
        sum = multiply_add(targets_[entry], static_cast<Real>(rows_[entry * padded + c]), sum);
      }
      rhs()[c] = sum;
    }
  }

  /// The lower Cholesky factor of a tile in registers, with the inverses of its diagonal. False: a pivot is too small.
  RECFUSE_DEVICE bool factor_tile(int k, Real least, Quad<Real> (&d)[kTile], Real (&inverse)[kTile]) const {
    const int stride = shape_.stride();
    bool good = true;
    RECFUSE_UNROLL
    for (int i = 0; i < kTile; ++i) d[i] = load_quad(matrix_ + (k * kTile + i) * stride + k * kTile);
    RECFUSE_UNROLL
    for (int j = 0; j < kTile; ++j) {
      const Real pivot = d[j].v[j];
      good = good && pivot > least * diagonal_[k * kTile + j] && pivot - pivot == 0;
      d[j].v[j] = std::sqrt(pivot);
      inverse[j] = 1 / d[j].v[j];
      RECFUSE_UNROLL
      for (int i = j + 1; i < kTile; ++i) d[i].v[j] *= inverse[j];
      RECFUSE_UNROLL
      for (int i = j + 1; i < kTile; ++i) {
        RECFUSE_UNROLL
        for (int m = j + 1; m <= i; ++m) d[i].v[m] = multiply_add(-d[i].v[j], d[m].v[j], d[i].v[m]);
      }
    }
    return good;
  }

  /// The rows below tile k, b among them. Every thread factors the tile for itself: that is cheaper than waiting.
  RECFUSE_DEVICE void factor_panel(int k, Real least, int thread) {
    const int stride = shape_.stride();
    Quad<Real> d[kTile];
    Real inverse[kTile];
    const bool good = factor_tile(k, least, d, inverse);
    for (int row = (k + 1) * kTile + thread; row <= shape_.padded(); row += kSystemThreads) {
      Quad<Real> x = load_quad(matrix_ + row * stride + k * kTile);
      RECFUSE_UNROLL
      for (int j = 0; j < kTile; ++j) {
        RECFUSE_UNROLL
        for (int m = 0; m < j; ++m) x.v[j] = multiply_add(-x.v[m], d[j].v[m], x.v[j]);
        x.v[j] *= inverse[j];
      }
      store_quad(matrix_ + row * stride + k * kTile, x);
    }
    if (thread != 0) return;
    // Others read the tile still: its factor waits here for the next phase.
    RECFUSE_UNROLL
    for (int i = 0; i < kTile; ++i) store_quad(panel_ + i * kTile, d[i]);
    RECFUSE_UNROLL
    for (int j = 0; j < kTile; ++j) inverse_[k * kTile + j] = inverse[j];
    if (!good) *status_ = kSmallPivot;
  }

  RECFUSE_DEVICE void update_behind(int k, int thread) {
    const int stride = shape_.stride(), first = k + 1;
    for (int t = thread; t < lower_tiles(shape_.tiles() - first); t += kSystemThreads) {
      const TilePlace place = tile_place(t);
      const Real* const left = matrix_ + (first + place.row) * kTile * stride + k * kTile;
      const Real* const right = matrix_ + (first + place.column) * kTile * stride + k * kTile;
      Real* const tile = matrix_ + (first + place.row) * kTile * stride + (first + place.column) * kTile;
      Quad<Real> columns[kTile];
      RECFUSE_UNROLL
      for (int j = 0; j < kTile; ++j) columns[j] = load_quad(right + j * stride);
      RECFUSE_UNROLL
      for (int i = 0; i < kTile; ++i) {
        const Quad<Real> row = load_quad(left + i * stride);
        Quad<Real> sum = load_quad(tile + i * stride);
        RECFUSE_UNROLL
        for (int j = 0; j < kTile; ++j) {
          RECFUSE_UNROLL
          for (int m = 0; m < kTile; ++m) sum.v[j] = multiply_add(-row.v[m], columns[j].v[m], sum.v[j]);
        }
        store_quad(tile + i * stride, sum);
      }
    }
    const Quad<Real> z = load_quad(rhs() + k * kTile);
    for (int c = first * kTile + thread; c < shape_.padded(); c += kSystemThreads) {
      const Quad<Real> row = load_quad(matrix_ + c * stride + k * kTile);
      Real sum = rhs()[c];
      RECFUSE_UNROLL
      for (int m = 0; m < kTile; ++m) sum = multiply_add(-z.v[m], row.v[m], sum);
      rhs()[c] = sum;
    }
    if (thread >= kTile) return;
    store_quad(matrix_ + (k * kTile + thread) * stride + k * kTile, load_quad(panel_ + thread * kTile));
  }

  RECFUSE_DEVICE void substitute_tile(int k, int thread) {
    const int stride = shape_.stride();
    const Real* const tile = matrix_ + k * kTile * stride + k * kTile;
    Quad<Real> x = load_quad(rhs() + k * kTile), d[kTile];
    RECFUSE_UNROLL
    for (int i = 0; i < kTile; ++i) d[i] = load_quad(tile + i * stride);
    RECFUSE_UNROLL
    for (int j = kTile - 1; j >= 0; --j) {
      RECFUSE_UNROLL
      for (int m = j + 1; m < kTile; ++m) x.v[j] = multiply_add(-d[m].v[j], x.v[m], x.v[j]);
      x.v[j] *= inverse_[k * kTile + j];
    }
    for (int c = thread; c < k * kTile; c += kSystemThreads) {
      Real sum = rhs()[c];
      RECFUSE_UNROLL
      for (int m = 0; m < kTile; ++m) sum = multiply_add(-matrix_[(k * kTile + m) * stride + c], x.v[m], sum);
      rhs()[c] = sum;
    }
    if (thread == 0) store_quad(solution_ + k * kTile, x);
  }

  SystemShape shape_;
  Real *matrix_, *weights_, *targets_, *diagonal_, *inverse_, *solution_, *panel_;
  float *rows_, *least_;
  int* status_;
};

}  // namespace recfuse::cuda
