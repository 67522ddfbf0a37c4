// The screen of rounded numbers: several neighbouring dimensions to the instruction, sums exact.

template <class Rounded>
RoundedNorms round_row(const float* x, double scale, const double* centre, double unit, std::int64_t n, Rounded* out) {
  constexpr double kLimit = sizeof(Rounded) == 1 ? 127 : 32767;
  const double inverse = unit > 0 ? 1 / unit : 0;
  double kept = 0, lost = 0;
  std::int64_t j = 0;
#if defined(__AVX512F__)
  __m512d sum_kept = _mm512_setzero_pd(), sum_lost = _mm512_setzero_pd();
  const __m512d limit = _mm512_set1_pd(kLimit);
  for (; j + 8 <= n; j += 8) {
    __m512d y = _mm512_mul_pd(_mm512_cvtps_pd(_mm256_loadu_ps(x + j)), _mm512_set1_pd(scale));
    if (centre != nullptr) y = _mm512_sub_pd(y, _mm512_loadu_pd(centre + j));
    __m512d units = _mm512_roundscale_pd(_mm512_mul_pd(y, _mm512_set1_pd(inverse)), _MM_FROUND_TO_NEAREST_INT);
    units = _mm512_max_pd(_mm512_min_pd(units, limit), _mm512_sub_pd(_mm512_setzero_pd(), limit));
    const __m256i whole = _mm512_cvtpd_epi32(units);
    if constexpr (sizeof(Rounded) == 1) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(out + j), _mm256_cvtepi32_epi8(whole));
    } else {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + j), _mm256_cvtepi32_epi16(whole));
    }
    const __m512d value = _mm512_mul_pd(units, _mm512_set1_pd(unit)), loss = _mm512_sub_pd(y, value);
    sum_kept = _mm512_fmadd_pd(value, value, sum_kept);
    sum_lost = _mm512_fmadd_pd(loss, loss, sum_lost);
  }
  double lanes[16];
  _mm512_storeu_pd(lanes, sum_kept);
  _mm512_storeu_pd(lanes + 8, sum_lost);
  for (int lane = 0; lane < 8; ++lane) {
    kept += lanes[lane];
    lost += lanes[lane + 8];
  }
#endif
  for (; j < n; ++j) {
    const double y = x[j] * scale - (centre == nullptr ? 0.0 : centre[j]);
    double units = __builtin_rint(y * inverse);
    units = units > kLimit ? kLimit : units < -kLimit ? -kLimit : units;
    out[j] = static_cast<Rounded>(units);
    const double value = units * unit, loss = y - value;
    kept += value * value;
    lost += loss * loss;
  }
  return {kept, lost};
}

double largest_element(const float* x, double scale, const double* centre, std::int64_t n) {
  double largest = 0;
  std::int64_t j = 0;
#if defined(__AVX512F__)
  __m512d most = _mm512_setzero_pd();
  for (; j + 8 <= n; j += 8) {
    __m512d y = _mm512_mul_pd(_mm512_cvtps_pd(_mm256_loadu_ps(x + j)), _mm512_set1_pd(scale));
    if (centre != nullptr) y = _mm512_sub_pd(y, _mm512_loadu_pd(centre + j));
    most = _mm512_max_pd(most, _mm512_abs_pd(y));
  }
  double lanes[8];
  _mm512_storeu_pd(lanes, most);
  for (const double lane : lanes) largest = lane > largest ? lane : largest;
#endif
  for (; j < n; ++j) {
    const double y = __builtin_fabs(x[j] * scale - (centre == nullptr ? 0.0 : centre[j]));
    largest = y > largest ? y : largest;
  }
  return largest;
}

/// A bit for every item of a panel that query r must not get.
inline unsigned refused_by(const RoundedPanel& items, int r) {
  return items.refused == nullptr ? 0 : items.refused[r * items.refused_step];
}

#if defined(__AVX512VNNI__)
constexpr int kItemLimit = 127;

struct FourBytes {
  static __m512i add_products(__m512i sum, __m512i items, __m512i queries) {
    return _mm512_dpbusd_epi32(sum, items, queries);  // items without a sign
  }
};

struct TwoInt16 {
  static __m512i add_products(__m512i sum, __m512i items, __m512i queries) {
    return _mm512_dpwssd_epi32(sum, items, queries);
  }
};

/// Appends the items of `mask` to the list of query r.
inline void append_candidates(const RoundedQueries& queries, const RoundedPanel& items, const std::int32_t* sums,
                              unsigned mask, int r, const CandidateLists& lists) {
  const std::int32_t list = lists.rows[r];
  const std::int64_t begin = list * lists.stride;
  const __m512i offset = _mm512_set1_epi32(queries.offsets[r]);
  const __m512 slope = _mm512_set1_ps(queries.slopes[r]), intercept = _mm512_set1_ps(queries.intercepts[r]);
  std::int64_t at = begin + lists.counts[list];
  unsigned admitted = mask & ~refused_by(items, r);
  for (int lane = 0; mask != 0; lane += 16, mask >>= 16, admitted >>= 16) {
    const auto half = static_cast<__mmask16>(admitted);
    const __m512 products = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_load_si512(sums + lane), offset));
    const __m512i ids = _mm512_maskz_loadu_epi32(half, items.ids + lane);
    _mm512_storeu_ps(lists.values + at, _mm512_maskz_compress_ps(half, _mm512_fmadd_ps(products, slope, intercept)));
    _mm512_storeu_ps(lists.bounds + at, _mm512_set1_ps(queries.bounds[r]));
    _mm512_storeu_si512(lists.ids + at, _mm512_maskz_compress_epi32(half, ids));
    at += __builtin_popcount(half);
  }
  lists.counts[list] = static_cast<std::int32_t>(at - begin);
}

template <class Format, int kHeight>
unsigned screen_rounded_panel(const RoundedQueries& queries, const RoundedPanel& items, const Segments& segments,
                              const CandidateLists& lists) {
  __m512i sums[kHeight][2];
#pragma GCC unroll 16
  for (int r = 0; r < kHeight; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_si512();
  const std::int32_t *query_words = queries.words, *item_words = items.words;
  const std::int32_t* multipliers = queries.multipliers;
  for (int segment = 0; segment < segments.n; ++segment) {
    if (segment > 0) {
#pragma GCC unroll 16
      for (int r = 0; r < kHeight; ++r) {
        const __m512i multiplier = _mm512_set1_epi32(multipliers[r]);
        sums[r][0] = _mm512_mullo_epi32(sums[r][0], multiplier);
        sums[r][1] = _mm512_mullo_epi32(sums[r][1], multiplier);
      }
      multipliers += kHeight;
    }
    for (std::int64_t s = 0; s < segments.steps[segment]; ++s) {
      const __m512i x0 = _mm512_loadu_si512(item_words), x1 = _mm512_loadu_si512(item_words + 16);
#pragma GCC unroll 16
      for (int r = 0; r < kHeight; ++r) {
        const __m512i q = _mm512_set1_epi32(query_words[r]);
        sums[r][0] = Format::add_products(sums[r][0], x0, q);
        sums[r][1] = Format::add_products(sums[r][1], x1, q);
      }
      query_words += kHeight;
      item_words += kPanelWidth;
    }
    // Without this GCC 12 keeps the sums in memory while it adds, at a third of the speed (benchmarks/micro).
#pragma GCC unroll 16
    for (int r = 0; r < kHeight; ++r) asm volatile("" : "+v"(sums[r][0]), "+v"(sums[r][1]));
  }
  unsigned masks[kHeight];
  unsigned any = 0;
#pragma GCC unroll 16
  for (int r = 0; r < kHeight; ++r) {
    const __m512i threshold = _mm512_set1_epi32(queries.thresholds[r]);
    masks[r] = static_cast<unsigned>(_mm512_cmpge_epi32_mask(sums[r][0], threshold)) |
               static_cast<unsigned>(_mm512_cmpge_epi32_mask(sums[r][1], threshold)) << 16;
    any |= masks[r];
  }
  if (any == 0) return 0;
  // One loop over the queries that have hits: a branch per query would be guessed wrong as often as not.
  const unsigned inside = ~0U >> (kPanelWidth - items.n_items);
  alignas(64) std::int32_t all[kHeight][kPanelWidth];
  unsigned grown = 0;
#pragma GCC unroll 16
  for (int r = 0; r < kHeight; ++r) {
    _mm512_store_si512(all[r], sums[r][0]);
    _mm512_store_si512(all[r] + 16, sums[r][1]);
    masks[r] &= inside;
    grown |= static_cast<unsigned>(masks[r] != 0) << r;
  }
  for (unsigned left = grown; left != 0; left &= left - 1) {
    const int r = __builtin_ctz(left);
    append_candidates(queries, items, all[r], masks[r], r, lists);
  }
  return grown;
}

template <class Format>
unsigned screen_rounded(int height, const RoundedQueries& queries, const RoundedPanel& items, const Segments& segments,
                        const CandidateLists& lists) {
  switch (height) {
    case 1:
      return screen_rounded_panel<Format, 1>(queries, items, segments, lists);
    case 2:
      return screen_rounded_panel<Format, 2>(queries, items, segments, lists);
    case 4:
      return screen_rounded_panel<Format, 4>(queries, items, segments, lists);
    case 8:
      return screen_rounded_panel<Format, 8>(queries, items, segments, lists);
    default:
      return screen_rounded_panel<Format, 14>(queries, items, segments, lists);
  }
}

/// Rows lie apart, and each is a line or a few.
void dot_rows_int8(const std::int32_t* query, const std::int32_t* table, std::int64_t stride, const std::uint32_t* rows,
                   std::int64_t n, std::int64_t words, std::int32_t* sums) {
  constexpr std::int64_t kFetchedAhead = 16;
  for (std::int64_t i = 0; i < n; ++i) {
    if (i + kFetchedAhead < n) {
      const std::int32_t* const ahead = table + rows[i + kFetchedAhead] * stride;
      for (std::int64_t word = 0; word < words; word += 16) __builtin_prefetch(ahead + word);
    }
    const std::int32_t* const row = table + rows[i] * stride;
    __m512i sum = _mm512_setzero_si512();
    for (std::int64_t word = 0; word < words; word += 16) {
      sum = FourBytes::add_products(sum, _mm512_loadu_si512(row + word), _mm512_loadu_si512(query + word));
    }
    sums[i] = _mm512_reduce_add_epi32(sum);
  }
}

/// The ceiling of screen_int8: its products on registers alone.
std::int64_t int8_chains(std::int64_t steps, float* sink) {
  constexpr int kSums = 24;
  const __m512i bytes = _mm512_set1_epi8(1);
  __m512i sums[kSums];
#pragma GCC unroll 32
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 32
    for (auto& sum : sums) {
      sum = FourBytes::add_products(sum, bytes, bytes);
      asm volatile("" : "+v"(sum));  // or the compiler would multiply by the number of steps
    }
  }
  std::int32_t lanes[16];
  _mm512_storeu_si512(lanes, sums[0]);
  *sink = static_cast<float>(lanes[0]);
  return 2 * steps * kSums * 64;
}

constexpr auto kInt8Chains = int8_chains;
constexpr auto kScreenInt8 = screen_rounded<FourBytes>;
constexpr auto kScreenInt16 = screen_rounded<TwoInt16>;
constexpr auto kDotRowsInt8 = dot_rows_int8;
#elif defined(__AVX2__) && !defined(__AVX512F__)  // where float32 is as fast as this
// Two products are added in 16 bits: 2 * 127 * 127 fits, with 64 added to items of at most 63.
constexpr int kItemLimit = 63;

struct FourBytes {
  static __m256i add_products(__m256i sum, __m256i items, __m256i queries) {
    const __m256i pairs = _mm256_maddubs_epi16(items, queries);  // items without a sign
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

struct TwoInt16 {
  static __m256i add_products(__m256i sum, __m256i items, __m256i queries) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(items, queries));
  }
};

constexpr int kVectors = kPanelWidth / 8;  // of a panel's sums

/// A bit for every sum that reaches the threshold.
inline unsigned at_least_mask(const __m256i* sums, std::int32_t threshold) {
  const __m256i least = _mm256_set1_epi32(threshold);
  const __m256i first = _mm256_packs_epi32(_mm256_cmpgt_epi32(least, sums[0]), _mm256_cmpgt_epi32(least, sums[1]));
  const __m256i second = _mm256_packs_epi32(_mm256_cmpgt_epi32(least, sums[2]), _mm256_cmpgt_epi32(least, sums[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing goes by halves of registers
  const __m256i below = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), order);
  return ~static_cast<unsigned>(_mm256_movemask_epi8(below));
}

/// Appends the items of `mask` to the list of query r.
inline void append_candidates(const RoundedQueries& queries, const RoundedPanel& items, const std::int32_t* sums,
                              unsigned mask, int r, const CandidateLists& lists) {
  const std::int32_t list = lists.rows[r];
  mask &= ~refused_by(items, r);
  const std::int64_t begin = list * lists.stride;
  std::int64_t at = begin + lists.counts[list];
  for (; mask != 0; mask &= mask - 1, ++at) {
    const int lane = __builtin_ctz(mask);
    const auto product = static_cast<float>(sums[lane] - queries.offsets[r]);
    lists.values[at] = product * queries.slopes[r] + queries.intercepts[r];
    lists.bounds[at] = queries.bounds[r];
    lists.ids[at] = items.ids[lane];
  }
  lists.counts[list] = static_cast<std::int32_t>(at - begin);
}

/// Queries [first, first + kRows) of a panel of `height`, whose words are that far apart from step to step. Sums are
/// compared in their registers and stored where an item reaches the threshold.
template <class Format, int kRows>
unsigned screen_rounded_rows(const RoundedQueries& queries, const RoundedPanel& items, const Segments& segments,
                             int height, int first, const CandidateLists& lists) {
  __m256i sums[kRows][kVectors];
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm256_setzero_si256();
  }
  const std::int32_t *query_words = queries.words + first, *item_words = items.words;
  const std::int32_t* multipliers = queries.multipliers + first;
  for (int segment = 0; segment < segments.n; ++segment) {
    if (segment > 0) {
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        const __m256i multiplier = _mm256_set1_epi32(multipliers[r]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm256_mullo_epi32(sums[r][v], multiplier);
      }
      multipliers += height;
    }
    for (std::int64_t s = 0; s < segments.steps[segment]; ++s) {
      __m256i q[kRows];
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) q[r] = _mm256_set1_epi32(query_words[r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(item_words + 8 * v));
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) sums[r][v] = Format::add_products(sums[r][v], x, q[r]);
      }
      query_words += height;
      item_words += kPanelWidth;
    }
    // Without this GCC 12 keeps the sums in memory while it adds.
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) asm volatile("" : "+x"(sums[r][v]));
    }
  }
  unsigned grown = 0;
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
    const unsigned mask =
        at_least_mask(sums[r], queries.thresholds[first + r]) & (~0U >> (kPanelWidth - items.n_items));
    if (mask == 0) continue;
    alignas(32) std::int32_t all[kPanelWidth];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) _mm256_store_si256(reinterpret_cast<__m256i*>(all + 8 * v), sums[r][v]);
    append_candidates(queries, items, all, mask, first + r, lists);
    grown |= 1U << (first + r);
  }
  return grown;
}

template <class Format>
unsigned screen_rounded(int height, const RoundedQueries& queries, const RoundedPanel& items, const Segments& segments,
                        const CandidateLists& lists) {
  if (height == 1) return screen_rounded_rows<Format, 1>(queries, items, segments, 1, 0, lists);
  unsigned grown = 0;
  for (int r = 0; r < height; r += 2) {
    grown |= screen_rounded_rows<Format, 2>(queries, items, segments, height, r, lists);
  }
  return grown;
}

/// Rows lie apart, and each is a line or a few.
void dot_rows_int8(const std::int32_t* query, const std::int32_t* table, std::int64_t stride, const std::uint32_t* rows,
                   std::int64_t n, std::int64_t words, std::int32_t* sums) {
  constexpr std::int64_t kFetchedAhead = 16;
  for (std::int64_t i = 0; i < n; ++i) {
    if (i + kFetchedAhead < n) {
      const std::int32_t* const ahead = table + rows[i + kFetchedAhead] * stride;
      for (std::int64_t word = 0; word < words; word += 16) __builtin_prefetch(ahead + word);
    }
    const std::int32_t* const row = table + rows[i] * stride;
    __m256i sum = _mm256_setzero_si256();
    for (std::int64_t word = 0; word < words; word += 8) {
      sum = FourBytes::add_products(sum, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + word)),
                                    _mm256_loadu_si256(reinterpret_cast<const __m256i*>(query + word)));
    }
    __m128i part = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    part = _mm_add_epi32(part, _mm_unpackhi_epi64(part, part));
    sums[i] = _mm_cvtsi128_si32(part) + _mm_extract_epi32(part, 1);
  }
}

/// The ceiling of screen_int8: its products on registers alone.
std::int64_t int8_chains(std::int64_t steps, float* sink) {
  constexpr int kSums = 10;
  const __m256i bytes = _mm256_set1_epi8(1);
  __m256i sums[kSums];
#pragma GCC unroll 16
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (std::int64_t step = 0; step < steps; ++step) {
    __m256i query = bytes;
    asm volatile("" : "+x"(query));  // or the compiler would multiply once
#pragma GCC unroll 16
    for (auto& sum : sums) {
      sum = FourBytes::add_products(sum, bytes, query);
      asm volatile("" : "+x"(sum), "+x"(query));
    }
  }
  std::int32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums[0]);
  *sink = static_cast<float>(lanes[0]);
  return 2 * steps * kSums * 32;
}

constexpr auto kInt8Chains = int8_chains;
constexpr auto kScreenInt8 = screen_rounded<FourBytes>;
constexpr auto kScreenInt16 = screen_rounded<TwoInt16>;
constexpr auto kDotRowsInt8 = dot_rows_int8;
#else
constexpr int kItemLimit = 127;
constexpr decltype(KernelTable::int8_chains) kInt8Chains = nullptr;
constexpr decltype(KernelTable::screen_int8) kScreenInt8 = nullptr;
constexpr decltype(KernelTable::screen_int16) kScreenInt16 = nullptr;
constexpr decltype(KernelTable::dot_rows_int8) kDotRowsInt8 = nullptr;
#endif
