// The screen of rounded numbers with VNNI: four bytes to the instruction, sums of 32 bits.

constexpr int kItemLimit = 127;
constexpr int kChunkSteps = 0;

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
constexpr decltype(KernelTable::largest_lane) kLargestLane = nullptr;
