// Sums of outer products: rows gathered once, then register tiles of the upper triangle.

#if defined(__AVX512F__)
constexpr int kTileRows = 8;  // 8 x 3 accumulators + 3 columns + 1 row element of 32 registers
constexpr int kTileVectors = 3;
#elif defined(__AVX2__)
constexpr int kTileRows = 4;  // 4 x 3 + 3 + 1 of 16
constexpr int kTileVectors = 3;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 8;
constexpr int kTileVectors = 3;
#else
constexpr int kTileRows = 4;
constexpr int kTileVectors = 2;
#endif

void implicit_entries(const float* values, std::int64_t n, float alpha, float base, float* weights, float* targets) {
  const Floats scale = broadcast(alpha), stored = broadcast(base), more = broadcast(base - 1);
  std::int64_t j = 0;
  for (; j + kFloats <= n; j += kFloats) {
    const Floats value = load(values + j);
    const Floats scaled = multiply(scale, absolute(value));
    store(weights + j, add(scaled, more));
    store(targets + j, where_positive(value, add(stored, scaled)));
  }
  for (; j < n; ++j) {
    weights[j] = extra_confidence(values[j], alpha, base);
    targets[j] = preference(values[j]) * confidence(values[j], alpha, base);
  }
}

void square_roots(std::int64_t n, float* x) {
  std::int64_t j = 0;
  for (; j + kFloats <= n; j += kFloats) store(x + j, square_root(load(x + j)));
  for (; j < n; ++j) x[j] = __builtin_sqrtf(x[j]);
}

constexpr int kGatherVectors = 4;  // accumulators of the right-hand side

template <int kVectors, bool kScaled>
inline __attribute__((always_inline)) void gather_columns(const float* table, std::int64_t stride,
                                                          const std::int32_t* ids, const float* scales,
                                                          const float* targets, std::int64_t n, float* rows,
                                                          float* rhs) {
  Floats sum[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) sum[v] = zero();
  for (std::int64_t j = 0; j < n; ++j) {
    if (j + kFarRows < n) {
      const float* far = table + ids[j + kFarRows] * stride;
      for (int v = 0; v < kVectors * kFloats; v += 16) prefetch_to_second_cache(far + v);
    }
    if (j + kNearRows < n) {
      const float* near = table + ids[j + kNearRows] * stride;
      for (int v = 0; v < kVectors * kFloats; v += 16) prefetch(near + v);
    }
    const float* in = table + ids[j] * stride;
    const Floats target = broadcast(targets[j]);
    const Floats scale = kScaled ? broadcast(scales[j]) : zero();
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Floats x = load(in + v * kFloats);
      sum[v] = multiply_add(target, x, sum[v]);
      store(rows + j * stride + v * kFloats, kScaled ? multiply(scale, x) : x);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) store(rhs + v * kFloats, add(load(rhs + v * kFloats), sum[v]));
}

template <bool kScaled>
inline __attribute__((always_inline)) void gather_all_columns(const float* table, const RowLayout& layout,
                                                              const std::int32_t* ids, const float* scales,
                                                              const float* targets, std::int64_t n, float* rows,
                                                              float* rhs) {
  std::int64_t c = 0;
  for (; c + kGatherVectors * kFloats <= layout.width; c += kGatherVectors * kFloats) {
    gather_columns<kGatherVectors, kScaled>(table + c, layout.stride, ids, scales, targets, n, rows + c, rhs + c);
  }
  for (; c < layout.width; c += kFloats) {
    gather_columns<1, kScaled>(table + c, layout.stride, ids, scales, targets, n, rows + c, rhs + c);
  }
}

void gather_rows(const float* table, const RowLayout& layout, const std::int32_t* ids, const float* scales,
                 const float* targets, std::int64_t n, float* rows, float* rhs) {
  if (scales != nullptr) {
    gather_all_columns<true>(table, layout, ids, scales, targets, n, rows, rhs);
  } else {
    gather_all_columns<false>(table, layout, ids, scales, targets, n, rows, rhs);
  }
}

void gather_transposed(const float* table, const RowLayout& layout, const std::int32_t* ids, const float* scales,
                       const float* columns, std::int64_t n, const RowLayout& out_layout, float* out) {
  for (std::int64_t j = 0; j < out_layout.width; j += kFloats) {
    const std::int64_t here = n - j < kFloats ? n - j : kFloats;
    const float* rows[kFloats];
    for (std::int64_t i = 0; i < here; ++i) rows[i] = table + ids[j + i] * layout.stride;
    for (std::int64_t c = 0; c < layout.width; c += kFloats) {
      Floats block[kFloats];
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < kFloats; ++i) {
        block[i] = i < here ? load(rows[i] + c) : zero();
        if (scales != nullptr && i < here) block[i] = multiply(broadcast(scales[j + i]), block[i]);
      }
      transpose(block);
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < kFloats; ++i) {
        store(out + (c + i) * out_layout.stride + j, multiply(broadcast(columns[c + i]), block[i]));
      }
    }
  }
}

/// out[r][c] = base[r][c] + or - sum_k rows[k][r] * rows[k][c], for kTileRows x kVectors * kFloats elements.
template <int kVectors, bool kSubtract>
inline __attribute__((always_inline)) void multiply_tile(const float* rows, std::int64_t stride, std::int64_t n,
                                                         std::int64_t r, std::int64_t c, const float* base,
                                                         float* out) {
  Floats sum[kTileRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[i][v] = zero();
  }
  for (std::int64_t k = 0; k < n; ++k) {
    const float* row = rows + k * stride;
    Floats x[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) x[v] = load(row + c + v * kFloats);
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i) {
      const Floats y = broadcast(row[r + i]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[i][v] = multiply_add(y, x[v], sum[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t at = (r + i) * stride + c + v * kFloats;
      const Floats old = load(base + at);
      store(out + at, kSubtract ? subtract(old, sum[i][v]) : add(old, sum[i][v]));
    }
  }
}

template <int kVectors, bool kSubtract>
inline __attribute__((always_inline)) void multiply_at_most(int vectors, const float* rows, std::int64_t stride,
                                                            std::int64_t n, std::int64_t r, std::int64_t c,
                                                            const float* base, float* out) {
  if (vectors == kVectors) {
    multiply_tile<kVectors, kSubtract>(rows, stride, n, r, c, base, out);
  } else if constexpr (kVectors > 1) {
    multiply_at_most<kVectors - 1, kSubtract>(vectors, rows, stride, n, r, c, base, out);
  }
}

/// The tiles of rows [r, r + kTileRows) from the diagonal to the right, of about equal width.
template <bool kSubtract>
inline void multiply_row_block(const float* rows, const RowLayout& layout, std::int64_t n, std::int64_t r,
                               const float* base, float* out) {
  std::int64_t c = r / kFloats * kFloats;
  int left = static_cast<int>((layout.width - c) / kFloats);
  for (int tiles = (left + kTileVectors - 1) / kTileVectors; tiles > 0; --tiles) {
    const int vectors = (left + tiles - 1) / tiles;
    multiply_at_most<kTileVectors, kSubtract>(vectors, rows, layout.stride, n, r, c, base, out);
    c += vectors * kFloats;
    left -= vectors;
  }
}

void add_gram(const float* rows, const RowLayout& layout, std::int64_t n, const float* base, float* gram,
              const AheadRows& ahead) {
  const std::int64_t blocks = layout.width / kTileRows;
  for (std::int64_t block = 0; block < blocks; ++block) {
    // A few at a time: the memory works while the tiles multiply.
    for (std::int64_t j = ahead.n * block / blocks; j < ahead.n * (block + 1) / blocks; ++j) {
      const float* row = ahead.table + ahead.ids[j] * ahead.layout.stride;
      for (std::int64_t c = 0; c < ahead.layout.width; c += 16) prefetch_to_second_cache(row + c);
    }
    multiply_row_block<false>(rows, layout, n, block * kTileRows, base, gram);
  }
}

void subtract_gram(const float* rows, const RowLayout& layout, std::int64_t n, float* gram) {
  for (std::int64_t r = 0; r < layout.width; r += kTileRows) multiply_row_block<true>(rows, layout, n, r, gram, gram);
}
