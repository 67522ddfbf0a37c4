// The float32 screen: a register block of queries times items, tested against thresholds before any store.

#if defined(__AVX512F__)
constexpr int kPanelQueries = 14;  // 14 x 2 accumulators + 2 items + 1 query of 32 registers
#elif defined(__AVX2__)
constexpr int kPanelQueries = 6;  // 6 x 2 + 2 + 1 of 16
#elif defined(__ARM_NEON)
constexpr int kPanelQueries = 12;  // 12 x 2 + 2 + 1 of 32
#else
constexpr int kPanelQueries = 4;  // without a fused multiply-add the product needs registers too
#endif
constexpr int kPanelVectors = 2;
constexpr int kPanelItems = kPanelVectors * kFloats;

struct PanelScores {
  Floats at[kPanelQueries][kPanelVectors];
};

inline __attribute__((always_inline)) PanelScores multiply_panels(const float* queries, const float* items,
                                                                  std::int64_t n) {
  PanelScores s;
#pragma GCC unroll 16
  for (int r = 0; r < kPanelQueries; ++r) {
    s.at[r][0] = zero();
    s.at[r][1] = zero();
  }
  for (std::int64_t k = 0; k < n; ++k) {
    const Floats x0 = load(items);
    const Floats x1 = load(items + kFloats);
#pragma GCC unroll 16
    for (int r = 0; r < kPanelQueries; ++r) {
      const Floats q = broadcast(queries[r]);
      s.at[r][0] = multiply_add(q, x0, s.at[r][0]);
      s.at[r][1] = multiply_add(q, x1, s.at[r][1]);
    }
    queries += kPanelQueries;
    items += kPanelItems;
  }
  return s;
}

/// Writes the lanes of `mask` in order; returns how many.
inline int compress(Floats scores, unsigned mask, int first_lane, float* out, std::int32_t* lanes) {
  float all[kFloats];
  store(all, scores);
  int n = 0;
  for (; mask != 0; mask &= mask - 1, ++n) {
    const int lane = __builtin_ctz(mask);
    out[n] = all[lane];
    lanes[n] = first_lane + lane;
  }
  return n;
}

int screen_panel(const float* queries, const float* items, std::int64_t n, const float* thresholds,
                 const PanelHits& hits) {
  const PanelScores s = multiply_panels(queries, items, n);
  unsigned masks[kPanelQueries][kPanelVectors];
  unsigned any = 0;
#pragma GCC unroll 16
  for (int r = 0; r < kPanelQueries; ++r) {
    const Floats threshold = broadcast(thresholds[r]);
    masks[r][0] = at_least(s.at[r][0], threshold);
    masks[r][1] = at_least(s.at[r][1], threshold);
    any |= masks[r][0] | masks[r][1];
  }
  if (any == 0) return 0;
  int total = 0;
#pragma GCC unroll 16
  for (int r = 0; r < kPanelQueries; ++r) {
    float* scores = hits.scores + r * kPanelItems;
    std::int32_t* lanes = hits.lanes + r * kPanelItems;
    int count = compress(s.at[r][0], masks[r][0], 0, scores, lanes);
    count += compress(s.at[r][1], masks[r][1], kFloats, scores + count, lanes + count);
    hits.counts[r] = count;
    total += count;
  }
  return total;
}

void score_panel(const float* queries, const float* items, std::int64_t n, float* scores) {
  const PanelScores s = multiply_panels(queries, items, n);
#pragma GCC unroll 16
  for (int r = 0; r < kPanelQueries; ++r) {
    store(scores + r * kPanelItems, s.at[r][0]);
    store(scores + r * kPanelItems + kFloats, s.at[r][1]);
  }
}

/// One row of a panel, element by element.
inline void pack_row(const float* row, float scale, int width, std::int64_t n, float* out) {
  for (std::int64_t k = 0; k < n; ++k) out[k * width] = row == nullptr ? 0.0F : row[k] * scale;
}

void pack_panel(const float* const* rows, const float* scales, int n_rows, int width, std::int64_t n, float* panel) {
  const std::int64_t n_blocked = n / kFloats * kFloats;
  int row = 0;
  for (; row + kFloats <= n_rows; row += kFloats) {
    bool whole = true;
    for (int i = 0; i < kFloats; ++i) whole = whole && rows[row + i] != nullptr;
    if (!whole) break;
    for (std::int64_t k = 0; k < n_blocked; k += kFloats) {
      Floats block[kFloats];
#pragma GCC unroll 16
      for (int i = 0; i < kFloats; ++i) block[i] = multiply(load(rows[row + i] + k), broadcast(scales[row + i]));
      transpose(block);
#pragma GCC unroll 16
      for (int i = 0; i < kFloats; ++i) store(panel + (k + i) * width + row, block[i]);
    }
    for (int i = 0; i < kFloats; ++i) {
      pack_row(rows[row + i] + n_blocked, scales[row + i], width, n - n_blocked, panel + n_blocked * width + row + i);
    }
  }
  for (; row < width; ++row) {
    pack_row(row < n_rows ? rows[row] : nullptr, row < n_rows ? scales[row] : 0.0F, width, n, panel + row);
  }
}

// Rows that are not neighbours surprise the memory; of long ones it guesses the rest.
constexpr std::int64_t kRowsAhead = 6, kBytesAhead = 1024;

/// The products of a query and the whole vectors of a row, to be added up.
inline Floats multiply_row(const float* query, const float* row, std::int64_t n) {
  // Four partial sums hide the latency of the additions.
  Floats s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  std::int64_t k = 0;
  for (; k + 4 * kFloats <= n; k += 4 * kFloats) {
    s0 = multiply_add(load(query + k), load(row + k), s0);
    s1 = multiply_add(load(query + k + kFloats), load(row + k + kFloats), s1);
    s2 = multiply_add(load(query + k + 2 * kFloats), load(row + k + 2 * kFloats), s2);
    s3 = multiply_add(load(query + k + 3 * kFloats), load(row + k + 3 * kFloats), s3);
  }
  for (; k + kFloats <= n; k += kFloats) s0 = multiply_add(load(query + k), load(row + k), s0);
  return add(add(s0, s1), add(s2, s3));
}

void score_rows(const float* query, const float* items, std::int64_t stride, const std::int32_t* ids,
                std::int64_t n_rows, std::int64_t n, float* out) {
  constexpr int kTogether = 4;  // adding the lanes of four rows up takes hardly longer than those of one
  for (std::int64_t begin = 0; begin < n_rows; begin += kTogether) {
    Floats products[kTogether] = {zero(), zero(), zero(), zero()};
    float rests[kTogether] = {}, sums[kTogether];
    const int n_together = static_cast<int>(n_rows - begin < kTogether ? n_rows - begin : kTogether);
    for (int r = 0; r < n_together; ++r) {
      const std::int64_t i = begin + r;
      const float* row = items + (ids == nullptr ? i : ids[i]) * stride;
      if (ids != nullptr && i + kRowsAhead < n_rows && ids[i + kRowsAhead] - ids[i] != kRowsAhead) {
        const char* const ahead = reinterpret_cast<const char*>(items + ids[i + kRowsAhead] * stride);
        for (std::int64_t byte = 0; byte < 4 * n && byte < kBytesAhead; byte += 64) __builtin_prefetch(ahead + byte);
      }
      products[r] = multiply_row(query, row, n);
      for (std::int64_t k = n / kFloats * kFloats; k < n; ++k) rests[r] += query[k] * row[k];
    }
    sum_four(products, sums);
    for (int r = 0; r < n_together; ++r) out[begin + r] = sums[r] + rests[r];
  }
}
