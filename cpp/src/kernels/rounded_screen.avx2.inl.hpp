// The screen of rounded numbers with AVX2: products of bytes are added in 16 bits for a while, then in 32.

// Two products are added in 16 bits: 2 * 127 * 127 fits, with 64 added to items of at most 63. Sums of such pairs stay
// in 16 bits for this many steps, modulo 2^16: two lanes a word, of every other pair. What was added to the items is
// taken off before, so it is enough that the sums of the products themselves fit, which KernelTable::largest_lane() is
// for.
constexpr int kItemLimit = 63;
constexpr int kChunkSteps = 8;

/// Squares of a chunk's elements: those of its first lane, then of its second.
double largest_lane(const float* x, double scale, const double* centre, std::int64_t n) {
  double largest = 0;
  for (std::int64_t begin = 0; begin < n; begin += 4 * kChunkSteps) {
    const std::int64_t end = begin + 4 * kChunkSteps < n ? begin + 4 * kChunkSteps : n;
    __m256d squares = _mm256_setzero_pd();
    std::int64_t j = begin;
    for (; j + 4 <= end; j += 4) {
      const __m256d y = four_scaled(x + j, scale, centre == nullptr ? nullptr : centre + j);
      squares = _mm256_fmadd_pd(y, y, squares);
    }
    double sums[4];
    _mm256_storeu_pd(sums, squares);
    for (; j < end; ++j) {
      const double y = x[j] * scale - (centre == nullptr ? 0.0 : centre[j]);
      sums[j % 4] += y * y;
    }
    const double first = sums[0] + sums[1], second = sums[2] + sums[3];
    largest = first > largest ? first : largest;
    largest = second > largest ? second : largest;
  }
  return __builtin_sqrt(largest);
}

inline __m256i eight_words(const std::int32_t* words) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
}

/// Items have no sign.
inline __m256i add_pairs(__m256i sum, __m256i items, __m256i queries) {
  return _mm256_add_epi16(sum, _mm256_maddubs_epi16(items, queries));
}

/// The two lanes of every word.
inline __m256i add_lanes(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

struct TwoInt16 {
  static __m256i add_products(__m256i sum, __m256i items, __m256i queries) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(items, queries));
  }
};

constexpr int kSumVectors = kPanelWidth / 8;  // of a panel's sums

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
  if (mask == ~0U) {  // without a threshold
    const __m256i offset = _mm256_set1_epi32(queries.offsets[r]);
    const __m256 slope = _mm256_set1_ps(queries.slopes[r]), intercept = _mm256_set1_ps(queries.intercepts[r]);
    for (int lane = 0; lane < kPanelWidth; lane += 8, at += 8) {
      const __m256 products = _mm256_cvtepi32_ps(_mm256_sub_epi32(eight_words(sums + lane), offset));
      _mm256_storeu_ps(lists.values + at, _mm256_add_ps(_mm256_mul_ps(products, slope), intercept));
      _mm256_storeu_ps(lists.bounds + at, _mm256_set1_ps(queries.bounds[r]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(lists.ids + at), eight_words(items.ids + lane));
    }
    mask = 0;
  }
  for (; mask != 0; mask &= mask - 1, ++at) {
    const int lane = __builtin_ctz(mask);
    const auto product = static_cast<float>(sums[lane] - queries.offsets[r]);
    lists.values[at] = product * queries.slopes[r] + queries.intercepts[r];
    lists.bounds[at] = queries.bounds[r];
    lists.ids[at] = items.ids[lane];
  }
  lists.counts[list] = static_cast<std::int32_t>(at - begin);
}

/// The products of a chunk's steps, from its start on. GCC 12, left alone, multiplies first, into memory, adds in an
/// order of its own and loads every item twice: the sums and the items are held in registers from step to step.
template <int kRows, int kHeight>
inline void sum_chunk(__m256i (&pairs)[kRows][kSumVectors], const std::int32_t* query_words,
                      const std::int32_t* item_words, std::int64_t steps) {
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (auto& sum : pairs[r]) sum = _mm256_set1_epi32(query_words[r]);
  }
  const auto add_step = [&](std::int64_t s) __attribute__((always_inline)) {
    __m256i q[kRows];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) q[r] = _mm256_set1_epi32(query_words[(s + 1) * kHeight + r]);
#pragma GCC unroll 4
    for (int v = 0; v < kSumVectors; ++v) {
      __m256i x = eight_words(item_words + s * kPanelWidth + 8 * v);
      asm("" : "+x"(x));
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) pairs[r][v] = add_pairs(pairs[r][v], x, q[r]);
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) asm volatile("" : "+x"(pairs[r][v]));
    }
  };
  if (steps == kChunkSteps) {
#pragma GCC unroll 8
    for (std::int64_t s = 0; s < kChunkSteps; ++s) add_step(s);
  } else {
#pragma GCC unroll 1
    for (std::int64_t s = 0; s < steps; ++s) add_step(s);
  }
}

/// Adds the sums of a chunk to those of the chunks before it.
template <int kRows>
inline void add_chunk(__m256i (&sums)[kRows][kSumVectors], const __m256i (&pairs)[kRows][kSumVectors]) {
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kSumVectors; ++v) sums[r][v] = _mm256_add_epi32(sums[r][v], add_lanes(pairs[r][v]));
  }
}

/// The sums of as many queries of a panel, whose words are kHeight apart from step to step. kPlain: of one segment in
/// whole chunks; a loop over segments around it makes GCC keep everything in memory, a tenth of the time.
template <int kRows, int kHeight, bool kPlain>
inline void sum_int8_rows(const std::int32_t* query_words, const std::int32_t* multipliers,
                          const std::int32_t* item_words, const Segments& segments,
                          __m256i (&sums)[kRows][kSumVectors]) {
  __m256i pairs[kRows][kSumVectors];
  std::int64_t left = segments.steps[0], steps = kPlain || left >= kChunkSteps ? kChunkSteps : left;
  sum_chunk<kRows, kHeight>(pairs, query_words, item_words, steps);
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kSumVectors; ++v) sums[r][v] = add_lanes(pairs[r][v]);
  }
  const auto move_on = [&]() __attribute__((always_inline)) {
    query_words += (1 + steps) * kHeight;
    item_words += steps * kPanelWidth;
  };
  if constexpr (kPlain) {
    for (std::int64_t chunk = 1; chunk < left / kChunkSteps; ++chunk) {
      move_on();
      sum_chunk<kRows, kHeight>(pairs, query_words, item_words, kChunkSteps);
      add_chunk(sums, pairs);
    }
    return;
  }
  for (int segment = 0;;) {
    left -= steps;
    if (left == 0) {
      if (++segment == segments.n) return;
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        for (auto& sum : sums[r]) sum = _mm256_mullo_epi32(sum, _mm256_set1_epi32(multipliers[r]));
      }
      multipliers += kHeight;
      left = segments.steps[segment];
    }
    move_on();
    steps = left < kChunkSteps ? left : kChunkSteps;
    sum_chunk<kRows, kHeight>(pairs, query_words, item_words, steps);
    add_chunk(sums, pairs);
  }
}

template <int kHeight, bool kPlain>
unsigned screen_int8_panel(const RoundedQueries& queries, const RoundedPanel& items, const Segments& segments,
                           const CandidateLists& lists) {
  constexpr int kRows = kHeight == 1 ? 1 : 2;
  unsigned grown = 0;
  for (int first = 0; first < kHeight; first += kRows) {
    __m256i sums[kRows][kSumVectors];
    sum_int8_rows<kRows, kHeight, kPlain>(queries.words + first, queries.multipliers + first, items.words, segments,
                                          sums);
    // One branch for both: mostly none of their items reaches a threshold.
    __m256i below = _mm256_set1_epi32(-1);
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      const __m256i largest =
          _mm256_max_epi32(_mm256_max_epi32(sums[r][0], sums[r][1]), _mm256_max_epi32(sums[r][2], sums[r][3]));
      const __m256i least = _mm256_set1_epi32(queries.thresholds[first + r]);
      below = _mm256_and_si256(below, _mm256_cmpgt_epi32(least, largest));
    }
    if (_mm256_movemask_epi8(below) == -1) continue;
#pragma GCC unroll 1
    for (int r = 0; r < kRows; ++r) {
      const unsigned inside = ~0U >> (kPanelWidth - items.n_items);
      const unsigned mask = at_least_mask(sums[r], queries.thresholds[first + r]) & inside;
      if (mask == 0) continue;
      append_candidates(queries, items, reinterpret_cast<const std::int32_t*>(sums[r]), mask, first + r, lists);
      grown |= 1U << (first + r);
    }
  }
  return grown;
}

template <int kHeight>
unsigned screen_int8_height(const RoundedQueries& queries, const RoundedPanel& items, const Segments& segments,
                            const CandidateLists& lists) {
  const bool plain = segments.n == 1 && segments.steps[0] % kChunkSteps == 0;
  if (plain) return screen_int8_panel<kHeight, true>(queries, items, segments, lists);
  return screen_int8_panel<kHeight, false>(queries, items, segments, lists);
}

unsigned screen_int8(int height, const RoundedQueries& queries, const RoundedPanel& items, const Segments& segments,
                     const CandidateLists& lists) {
  switch (height) {
    case 1:
      return screen_int8_height<1>(queries, items, segments, lists);
    case 2:
      return screen_int8_height<2>(queries, items, segments, lists);
    case 4:
      return screen_int8_height<4>(queries, items, segments, lists);
    case 8:
      return screen_int8_height<8>(queries, items, segments, lists);
    default:
      return screen_int8_height<14>(queries, items, segments, lists);
  }
}

/// Queries [first, first + kRows) of a panel of `height`. Sums are compared in their registers and stored where an item
/// reaches the threshold.
template <int kRows>
unsigned screen_int16_rows(const RoundedQueries& queries, const RoundedPanel& items, const Segments& segments,
                           int height, int first, const CandidateLists& lists) {
  __m256i sums[kRows][kSumVectors];
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kSumVectors; ++v) sums[r][v] = _mm256_setzero_si256();
  }
  const std::int32_t *query_words = queries.words + first, *item_words = items.words;
  const std::int32_t* multipliers = queries.multipliers + first;
  for (int segment = 0; segment < segments.n; ++segment) {
    if (segment > 0) {
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        const __m256i multiplier = _mm256_set1_epi32(multipliers[r]);
#pragma GCC unroll 4
        for (int v = 0; v < kSumVectors; ++v) sums[r][v] = _mm256_mullo_epi32(sums[r][v], multiplier);
      }
      multipliers += height;
    }
    for (std::int64_t s = 0; s < segments.steps[segment]; ++s) {
      __m256i q[kRows];
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) q[r] = _mm256_set1_epi32(query_words[r]);
#pragma GCC unroll 4
      for (int v = 0; v < kSumVectors; ++v) {
        const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(item_words + 8 * v));
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) sums[r][v] = TwoInt16::add_products(sums[r][v], x, q[r]);
      }
      query_words += height;
      item_words += kPanelWidth;
    }
    // Without this GCC 12 keeps the sums in memory while it adds.
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kSumVectors; ++v) asm volatile("" : "+x"(sums[r][v]));
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
    for (int v = 0; v < kSumVectors; ++v) _mm256_store_si256(reinterpret_cast<__m256i*>(all + 8 * v), sums[r][v]);
    append_candidates(queries, items, all, mask, first + r, lists);
    grown |= 1U << (first + r);
  }
  return grown;
}

unsigned screen_int16(int height, const RoundedQueries& queries, const RoundedPanel& items, const Segments& segments,
                      const CandidateLists& lists) {
  if (height == 1) return screen_int16_rows<1>(queries, items, segments, 1, 0, lists);
  unsigned grown = 0;
  for (int r = 0; r < height; r += 2) grown |= screen_int16_rows<2>(queries, items, segments, height, r, lists);
  return grown;
}

/// Rows lie apart, and each is a line or a few.
void dot_rows_int8(const std::int32_t* query, const std::int32_t* table, std::int64_t stride, const std::uint32_t* rows,
                   std::int64_t n, std::int64_t words, std::int32_t* sums) {
  constexpr std::int64_t kFetchedAhead = 16;
  const __m256i added = _mm256_set1_epi8(kItemLimit + 1);
  __m256i start = _mm256_setzero_si256();
  for (std::int64_t word = 0; word < words; word += 8) {
    start = _mm256_sub_epi32(start, add_lanes(_mm256_maddubs_epi16(added, eight_words(query + word))));
  }
  for (std::int64_t i = 0; i < n; ++i) {
    if (i + kFetchedAhead < n) {
      const std::int32_t* const ahead = table + rows[i + kFetchedAhead] * stride;
      for (std::int64_t word = 0; word < words; word += 16) __builtin_prefetch(ahead + word);
    }
    const std::int32_t* const row = table + rows[i] * stride;
    __m256i sum = start;
    for (std::int64_t word = 0; word < words; word += 8) {
      const __m256i pairs = _mm256_maddubs_epi16(eight_words(row + word), eight_words(query + word));
      sum = _mm256_add_epi32(sum, add_lanes(pairs));
    }
    __m128i part = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    part = _mm_add_epi32(part, _mm_unpackhi_epi64(part, part));
    sums[i] = _mm_cvtsi128_si32(part) + _mm_extract_epi32(part, 1);
  }
}

/// The ceiling of screen_int8: its products on registers alone.
std::int64_t int8_chains(std::int64_t steps, float* sink) {
  constexpr int kSums = 8;
  const __m256i bytes = _mm256_set1_epi8(1);
  __m256i sums[kSums], pairs[kSums];
#pragma GCC unroll 8
  for (int i = 0; i < kSums; ++i) sums[i] = pairs[i] = _mm256_setzero_si256();
  for (std::int64_t step = 0; step < steps; ++step) {
    __m256i query = bytes;
    asm volatile("" : "+x"(query));  // or the compiler would multiply once
#pragma GCC unroll 8
    for (auto& sum : pairs) {
      sum = add_pairs(sum, bytes, query);
      asm volatile("" : "+x"(sum), "+x"(query));
    }
    if (step % kChunkSteps != 0) continue;
#pragma GCC unroll 8
    for (int i = 0; i < kSums; ++i) sums[i] = _mm256_add_epi32(sums[i], add_lanes(pairs[i]));
  }
  std::int32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums[0]);
  *sink = static_cast<float>(lanes[0]);
  return 2 * steps * kSums * 32;
}

constexpr auto kInt8Chains = int8_chains;
constexpr auto kScreenInt8 = screen_int8;
constexpr auto kScreenInt16 = screen_int16;
constexpr auto kDotRowsInt8 = dot_rows_int8;
constexpr auto kLargestLane = largest_lane;
