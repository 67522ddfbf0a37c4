// The pass over the entries of a row that conjugate gradients make once a step, and the products that turn factors.
//
// Rounded rows hold pairs of bfloat16 in words: vector 2 q of a row in the low halves of the words of vector q, vector
// 2 q + 1 in the high ones. A low half is a float32 after a shift. A whole word already is one: its low half stands
// where the least bits of the high element's float32 do, and rounding took that into account.

inline Floats low_halves(Floats words) { return shift_left_16(words); }

inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

constexpr std::int64_t kPair = 2 * kFloats;

constexpr std::uint32_t kSmallestNormal = 0x00800000U;  // as bits; below, processors take their time

/// The two elements of `pair`, kFloats apart, as one word each.
inline void round_pair(const float* pair, std::uint32_t* words) {
  for (int lane = 0; lane < kFloats; ++lane) {
    const std::uint32_t low = bits_of(pair[lane]), high = bits_of(pair[kFloats + lane]);
    const std::uint32_t rounded = (low + 0x7FFFU + ((low >> 16) & 1U)) >> 16;  // to nearest, ties to even
    // Of the numbers that end in this low half, the nearest one: of one sign, they are ordered as their bits.
    const std::uint32_t above = (high & 0x7FFFFFFFU) + 0x8000U;
    std::uint32_t word = (above < rounded ? 0U : (above - rounded) & 0xFFFF0000U) | rounded;
    if (word < kSmallestNormal && word != 0) word |= kSmallestNormal;
    words[lane] = (high & 0x80000000U) | word;
  }
}

void round_rows(const float* rows, std::int64_t stride, std::int64_t columns, std::int64_t n, std::int64_t packed_width,
                std::uint32_t* out) {
  for (std::int64_t j = 0; j < n; ++j) {
    const float* row = rows + j * stride;
    std::uint32_t* words = out + j * (packed_width / 2);
    for (std::int64_t c = 0; c < packed_width; c += kPair) {
      alignas(64) float pair[kPair];
      // A high half that nobody reads is 1: as 0 it would be a number below the normal ones.
      for (std::int64_t k = 0; k < kPair; ++k) pair[k] = c + k < columns ? row[c + k] : (k < kFloats ? 0.0F : 1.0F);
      round_pair(pair, words + c / 2);
    }
  }
}

constexpr int kPassRows = 4;                          // independent sums hide the latency of the additions
constexpr std::int64_t kFarRows = 24, kNearRows = 6;  // asked for in the second cache, and in the first

/// Where a pass finds the words of its rows.
template <bool kIndexed>
struct PassRows {
  const float* table;
  const std::int32_t* ids;
  std::int64_t words;  // of one row
  std::int64_t n;

  const float* at(std::int64_t j) const { return table + (kIndexed ? ids[j] : j) * words; }

  void fetch_ahead(std::int64_t j) const {
    if constexpr (kIndexed) {
      if (j + kFarRows < n) {
        const float* far = at(j + kFarRows);
        for (std::int64_t w = 0; w < words; w += 16) prefetch_to_second_cache(far + w);
      }
      if (j + kNearRows < n) {
        const float* near = at(j + kNearRows);
        for (std::int64_t w = 0; w < words; w += 16) prefetch(near + w);
      }
    }
  }
};

/// Two vectors of elements of a row: from one vector of words, or from two of floats.
template <bool kRounded>
inline void load_pair(const float* row, std::int64_t pair, Floats& first, Floats& second) {
  if constexpr (kRounded) {
    second = load(row + pair * kFloats);
    first = low_halves(second);
  } else {
    first = load(row + pair * kPair);
    second = load(row + pair * kPair + kFloats);
  }
}

/// The same from registers.
template <bool kRounded>
inline Floats first_of(const Floats* words, int pair) {
  return kRounded ? low_halves(words[pair]) : words[2 * pair];
}
template <bool kRounded>
inline Floats second_of(const Floats* words, int pair) {
  return words[kRounded ? pair : 2 * pair + 1];
}

/// targets[j] - weights[j] * dot[j], or weights[j] * dot[j] without targets, of `n` <= kPassRows rows; 0 for the
/// others.
inline void coefficients(const float* targets, const float* weights, const float* dots, std::int64_t n, float* out) {
#if defined(__SSE2__)
  if (n >= kPassRows) {
    const __m128 products = _mm_mul_ps(_mm_loadu_ps(weights), _mm_loadu_ps(dots));
    _mm_storeu_ps(out, targets == nullptr ? products : _mm_sub_ps(_mm_loadu_ps(targets), products));
    return;
  }
#endif
  for (std::int64_t i = 0; i < kPassRows; ++i) {
    const float product = i < n ? weights[i] * dots[i] : 0.0F;
    out[i] = targets != nullptr && i < n ? targets[i] - product : product;
  }
}

/// The words of all kPassRows rows, and the sums y, are in registers.
template <bool kRounded, bool kIndexed, int kPairs>
inline __attribute__((always_inline)) void pass_in_registers(const PassRows<kIndexed>& rows, const float* targets,
                                                             const float* weights, const float* x, float* copy,
                                                             float* y) {
  constexpr int kWords = kRounded ? kPairs : 2 * kPairs;  // vectors of words of a row
  Floats ys[2 * kPairs];
#pragma GCC unroll 8
  for (int v = 0; v < 2 * kPairs; ++v) ys[v] = load(y + v * kFloats);
  for (std::int64_t j = 0; j < rows.n; j += kPassRows) {
    Floats words[kPassRows][kWords], sums[kPassRows];
#pragma GCC unroll 4
    for (int i = 0; i < kPassRows; ++i) {
      // Behind the last row stands that one again, with 0 for a coefficient.
      const std::int64_t at = j + i < rows.n ? j + i : rows.n - 1;
      rows.fetch_ahead(at);
      const float* row = rows.at(at);
#pragma GCC unroll 4
      for (int w = 0; w < kWords; ++w) {
        words[i][w] = load(row + w * kFloats);
        if (kIndexed && copy != nullptr) store(copy + at * rows.words + w * kFloats, words[i][w]);
      }
      Floats even = zero(), odd = zero();
#pragma GCC unroll 4
      for (int p = 0; p < kPairs; ++p) {
        even = multiply_add(first_of<kRounded>(words[i], p), load(x + p * kPair), even);
        odd = multiply_add(second_of<kRounded>(words[i], p), load(x + p * kPair + kFloats), odd);
      }
      sums[i] = add(even, odd);
    }
    float dots[kPassRows], scale[kPassRows];
    sum_four(sums, dots);
    coefficients(targets == nullptr ? nullptr : targets + j, weights + j, dots, rows.n - j, scale);
#pragma GCC unroll 4
    for (int i = 0; i < kPassRows; ++i) {
      const Floats c = broadcast(scale[i]);
#pragma GCC unroll 4
      for (int p = 0; p < kPairs; ++p) {
        ys[2 * p] = multiply_add(c, first_of<kRounded>(words[i], p), ys[2 * p]);
        ys[2 * p + 1] = multiply_add(c, second_of<kRounded>(words[i], p), ys[2 * p + 1]);
      }
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < 2 * kPairs; ++v) store(y + v * kFloats, ys[v]);
}

/// kPassRows rows at a time from the first cache, once for the products with x and once for the sums y.
template <bool kRounded, bool kIndexed>
inline __attribute__((always_inline)) void pass_in_cache(const PassRows<kIndexed>& rows, std::int64_t pairs,
                                                         const float* targets, const float* weights, const float* x,
                                                         float* copy, float* y) {
  for (std::int64_t j = 0; j < rows.n; j += kPassRows) {
    const float* row[kPassRows];
    Floats even[kPassRows], odd[kPassRows];
    for (int i = 0; i < kPassRows; ++i) {
      const std::int64_t at = j + i < rows.n ? j + i : rows.n - 1;
      rows.fetch_ahead(at);
      row[i] = rows.at(at);
      even[i] = odd[i] = zero();
    }
    for (std::int64_t p = 0; p < pairs; ++p) {
      const Floats x0 = load(x + p * kPair), x1 = load(x + p * kPair + kFloats);
#pragma GCC unroll 4
      for (int i = 0; i < kPassRows; ++i) {
        Floats first, second;
        load_pair<kRounded>(row[i], p, first, second);
        even[i] = multiply_add(first, x0, even[i]);
        odd[i] = multiply_add(second, x1, odd[i]);
      }
    }
    Floats sums[kPassRows];
    for (int i = 0; i < kPassRows; ++i) sums[i] = add(even[i], odd[i]);
    float dots[kPassRows], scale[kPassRows];
    sum_four(sums, dots);
    coefficients(targets == nullptr ? nullptr : targets + j, weights + j, dots, rows.n - j, scale);
    Floats c[kPassRows];
    for (int i = 0; i < kPassRows; ++i) c[i] = broadcast(scale[i]);
    for (std::int64_t p = 0; p < pairs; ++p) {
      Floats y0 = load(y + p * kPair), y1 = load(y + p * kPair + kFloats);
#pragma GCC unroll 4
      for (int i = 0; i < kPassRows; ++i) {
        Floats first, second;
        load_pair<kRounded>(row[i], p, first, second);
        y0 = multiply_add(c[i], first, y0);
        y1 = multiply_add(c[i], second, y1);
      }
      store(y + p * kPair, y0);
      store(y + p * kPair + kFloats, y1);
    }
    if constexpr (kIndexed) {
      for (int i = 0; copy != nullptr && i < kPassRows && j + i < rows.n; ++i) {
        for (std::int64_t w = 0; w < rows.words; w += kFloats) store(copy + (j + i) * rows.words + w, load(row[i] + w));
      }
    }
  }
}

template <bool kRounded, bool kIndexed>
void pass(const PassSource& source, std::int64_t n, const float* targets, const float* weights, const float* x,
          float* copy, float* y) {
  const std::int64_t pairs = source.width / kPair;
  const PassRows<kIndexed> rows{source.table, source.ids, source.words, n};
#if defined(__AVX512F__)
  // 32 registers: 4 rows of 64 floats, or of 128 rounded ones.
  if (pairs == 1) return pass_in_registers<kRounded, kIndexed, 1>(rows, targets, weights, x, copy, y);
  if (pairs == 2) return pass_in_registers<kRounded, kIndexed, 2>(rows, targets, weights, x, copy, y);
  if constexpr (kRounded) {
    if (pairs == 3) return pass_in_registers<kRounded, kIndexed, 3>(rows, targets, weights, x, copy, y);
    if (pairs == 4) return pass_in_registers<kRounded, kIndexed, 4>(rows, targets, weights, x, copy, y);
  }
#endif
  pass_in_cache<kRounded, kIndexed>(rows, pairs, targets, weights, x, copy, y);
}

void normal_pass(const PassSource& source, std::int64_t n, const float* targets, const float* weights, const float* x,
                 float* copy, float* y) {
  if (source.rounded) {
    if (source.ids != nullptr) return pass<true, true>(source, n, targets, weights, x, copy, y);
    return pass<true, false>(source, n, targets, weights, x, nullptr, y);
  }
  if (source.ids != nullptr) return pass<false, true>(source, n, targets, weights, x, copy, y);
  pass<false, false>(source, n, targets, weights, x, nullptr, y);
}

template <bool kRounded, bool kIndexed>
float curvature_of(const PassSource& source, std::int64_t n, const float* weights, const float* x) {
  const PassRows<kIndexed> rows{source.table, source.ids, source.words, n};
  double total = 0;  // weights may be negative, and little left of the sum
  for (std::int64_t j = 0; j < n; j += kPassRows) {
    const float* row[kPassRows];
    Floats even[kPassRows], odd[kPassRows];
#pragma GCC unroll 4
    for (int i = 0; i < kPassRows; ++i) {
      const std::int64_t at = j + i < n ? j + i : n - 1;
      rows.fetch_ahead(at);
      row[i] = rows.at(at);
      even[i] = odd[i] = zero();
    }
    for (std::int64_t p = 0; p < source.width / kPair; ++p) {
      const Floats x0 = load(x + p * kPair), x1 = load(x + p * kPair + kFloats);
#pragma GCC unroll 4
      for (int i = 0; i < kPassRows; ++i) {
        Floats first, second;
        load_pair<kRounded>(row[i], p, first, second);
        even[i] = multiply_add(first, x0, even[i]);
        odd[i] = multiply_add(second, x1, odd[i]);
      }
    }
    Floats sums[kPassRows];
#pragma GCC unroll 4
    for (int i = 0; i < kPassRows; ++i) sums[i] = add(even[i], odd[i]);
    float dots[kPassRows], scale[kPassRows];
    sum_four(sums, dots);
    coefficients(nullptr, weights + j, dots, n - j, scale);
    for (int i = 0; i < kPassRows; ++i) total += static_cast<double>(scale[i]) * static_cast<double>(dots[i]);
  }
  return static_cast<float>(total);
}

float pass_curvature(const PassSource& source, std::int64_t n, const float* weights, const float* x) {
  if (source.ids != nullptr) {
    if (source.rounded) return curvature_of<true, true>(source, n, weights, x);
    return curvature_of<false, true>(source, n, weights, x);
  }
  if (source.rounded) return curvature_of<true, false>(source, n, weights, x);
  return curvature_of<false, false>(source, n, weights, x);
}

void add_row_products(const float* rows, const RowLayout& layout, std::int64_t n, const float* x, float* out) {
  for (std::int64_t j = 0; j < n; j += kPassRows) {
    Floats sums[kPassRows];
    for (int i = 0; i < kPassRows; ++i) {
      const float* row = rows + (j + i < n ? j + i : n - 1) * layout.stride;
      sums[i] = zero();
      for (std::int64_t c = 0; c < layout.width; c += kFloats)
        sums[i] = multiply_add(load(row + c), load(x + c), sums[i]);
    }
    float dots[kPassRows];
    sum_four(sums, dots);
    for (std::int64_t i = 0; i < kPassRows && j + i < n; ++i) out[j + i] += dots[i];
  }
}

void add_weighted_rows(const float* rows, const RowLayout& layout, std::int64_t n, const float* weights, float* sum) {
  for (std::int64_t c = 0; c < layout.width; c += kFloats) {
    Floats total = load(sum + c);
    for (std::int64_t j = 0; j < n; ++j) {
      total = multiply_add(broadcast(weights[j]), load(rows + j * layout.stride + c), total);
    }
    store(sum + c, total);
  }
}

/// kRows rows times the rows [begin, end) of a panel, the sums in registers.
template <int kRows>
inline __attribute__((always_inline)) void multiply_rows_tile(const float* rows, const float* panel, std::int64_t begin,
                                                              std::int64_t end, std::int64_t stride, float* out) {
  constexpr int kVectors = kPanel / kFloats;
  Floats sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[i][v] = zero();
  }
  for (std::int64_t k = begin; k < end; ++k) {
    Floats m[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) m[v] = load(panel + k * kPanel + v * kFloats);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Floats x = broadcast(rows[i * stride + k]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[i][v] = multiply_add(x, m[v], sum[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) store(out + i * stride + v * kFloats, sum[i][v]);
  }
}

void multiply_rows(const float* rows, const PanelMatrix& matrix, const RowLayout& layout, float* out) {
#if defined(__AVX512F__)
  constexpr int kRows = kTurnedRows;
#elif defined(__AVX2__)
  constexpr int kRows = kTurnedRows / 2;  // 12 sums of 16 registers
#else
  constexpr int kRows = 2;
#endif
  for (std::int64_t panel = 0; panel * kPanel < layout.width; ++panel) {
    const float* values = matrix.values + panel * kPanel * layout.width;
    for (std::int64_t i = 0; i < kTurnedRows; i += kRows) {
      multiply_rows_tile<kRows>(rows + i * layout.stride, values, matrix.begin[panel], matrix.end[panel], layout.stride,
                                out + i * layout.stride + panel * kPanel);
    }
  }
}

void add_scaled(float scale, const float* x, std::int64_t n, float* y) {
  const Floats s = broadcast(scale);
  for (std::int64_t c = 0; c < n; c += kFloats) store(y + c, multiply_add(s, load(x + c), load(y + c)));
}

void multiply_elements(const float* a, const float* b, std::int64_t n, float* out) {
  for (std::int64_t c = 0; c < n; c += kFloats) store(out + c, multiply(load(a + c), load(b + c)));
}

float dot_product(const float* a, const float* b, std::int64_t n) {
  Floats even = zero(), odd = zero();
  for (std::int64_t c = 0; c < n; c += kPair) {
    even = multiply_add(load(a + c), load(b + c), even);
    odd = multiply_add(load(a + c + kFloats), load(b + c + kFloats), odd);
  }
  alignas(64) float lanes[kFloats];
  store(lanes, add(even, odd));
  for (int half = kFloats / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[half + i];
  }
  return lanes[0];
}
