// Sums of the products of a row with those that have smaller numbers, and the search for those that are large enough
// for either of the two rows.

constexpr std::int64_t kEarlierAhead = 6;  // lists; where one begins is a cache miss otherwise
constexpr std::int64_t kEarlierLines = 8;

struct Id16 {
  std::uint16_t word;
  std::uint32_t id() const { return word; }
  std::uint32_t times(std::uint32_t weight) const { return weight; }
};
struct Id32 {
  std::uint32_t word;
  std::uint32_t id() const { return word; }
  std::uint32_t times(std::uint32_t weight) const { return weight; }
};
struct Id16Value16 {
  std::uint32_t word;
  std::uint32_t id() const { return word & 0xFFFF; }
  std::uint32_t times(std::uint32_t weight) const { return weight * (word >> 16); }
};
struct Id24Value8 {
  std::uint32_t word;
  std::uint32_t id() const { return word & 0xFFFFFF; }
  std::uint32_t times(std::uint32_t weight) const { return weight * (word >> 24); }
};
struct Id32Value32 {
  std::uint64_t word;
  std::uint32_t id() const { return static_cast<std::uint32_t>(word); }
  std::uint32_t times(std::uint32_t weight) const { return weight * static_cast<std::uint32_t>(word >> 32); }
};
struct Id32Real {
  std::uint64_t word;
  std::uint32_t id() const { return static_cast<std::uint32_t>(word); }
  double value() const {
    return static_cast<double>(__builtin_bit_cast(float, static_cast<std::uint32_t>(word >> 32)));
  }
};

/// Calls add(value, begin, end) for every part of a list.
template <class Entry, class Add>
inline __attribute__((always_inline)) void walk_parts(const ListParts& lists, Add add) {
  const Entry* const words = static_cast<const Entry*>(lists.words);
  for (std::int64_t j = 0; j < lists.n; ++j) {
    if (j + kEarlierAhead < lists.n) {
      const Entry* const begin = words + lists.parts[j + kEarlierAhead].begin;
      const Entry* const end = words + lists.parts[j + kEarlierAhead].end;
      constexpr std::int64_t kStep = 64 / sizeof(Entry);
      for (std::int64_t line = 0; line < kEarlierLines && begin + line * kStep < end; ++line) {
        __builtin_prefetch(begin + line * kStep);
      }
    }
    add(lists.parts[j].value, words + lists.parts[j].begin, words + lists.parts[j].end);
  }
}

template <bool kMark, class Entry>
void add_earlier_counts_of(const ListParts& lists, float scale, std::uint32_t* sums, std::uint8_t* touched) {
  walk_parts<Entry>(lists, [&](float value, const Entry* begin, const Entry* end) {
    const std::uint32_t weight = static_cast<std::uint32_t>(value * scale);
#pragma GCC unroll 8
    for (const Entry* e = begin; e < end; ++e) {
      sums[e->id()] += e->times(weight);
      if constexpr (kMark) touched[e->id() / kTouchedIds] = 1;
    }
  });
}

template <bool kMark>
void add_earlier_counts_as(const ListParts& lists, float scale, std::uint32_t* sums, std::uint8_t* touched) {
  switch (lists.kind) {
    case EntryKind::kId16:
      return add_earlier_counts_of<kMark, Id16>(lists, scale, sums, touched);
    case EntryKind::kId32:
      return add_earlier_counts_of<kMark, Id32>(lists, scale, sums, touched);
    case EntryKind::kId16Value16:
      return add_earlier_counts_of<kMark, Id16Value16>(lists, scale, sums, touched);
    case EntryKind::kId24Value8:
      return add_earlier_counts_of<kMark, Id24Value8>(lists, scale, sums, touched);
    default:
      return add_earlier_counts_of<kMark, Id32Value32>(lists, scale, sums, touched);
  }
}

void add_earlier_counts(const ListParts& lists, float scale, std::uint32_t* sums, std::uint8_t* touched) {
  if (touched != nullptr) return add_earlier_counts_as<true>(lists, scale, sums, touched);
  add_earlier_counts_as<false>(lists, scale, sums, touched);
}

template <bool kMark, bool kSupport>
void add_earlier_reals_of(const ListParts& lists, double* sums, std::uint32_t* support, std::uint8_t* touched) {
  walk_parts<Id32Real>(lists, [&](float value, const Id32Real* begin, const Id32Real* end) {
    const double weight = value;
#pragma GCC unroll 8
    for (const Id32Real* e = begin; e < end; ++e) {
      sums[e->id()] += weight * e->value();
      if constexpr (kSupport) ++support[e->id()];
      if constexpr (kMark) touched[e->id() / kTouchedIds] = 1;
    }
  });
}

void add_earlier_reals(const ListParts& lists, double* sums, std::uint32_t* support, std::uint8_t* touched) {
  if (support != nullptr) {
    if (touched != nullptr) return add_earlier_reals_of<true, true>(lists, sums, support, touched);
    return add_earlier_reals_of<false, true>(lists, sums, support, touched);
  }
  if (touched != nullptr) return add_earlier_reals_of<true, false>(lists, sums, support, touched);
  add_earlier_reals_of<false, false>(lists, sums, support, touched);
}

constexpr int kMarkedGroups = 16;

/// The groups with a mark, from `next` on, which moves on: some kMarkedGroups of them. Wipes the marks and tells what
/// will be read.
template <class Prefetch>
inline int take_marked(std::uint8_t* touched, std::int64_t n_groups, std::int64_t& next, std::int64_t* groups,
                       Prefetch prefetch) {
  int taken = 0;
  for (; next < n_groups && taken < kMarkedGroups; next += 8) {
    std::uint64_t marks = 0;
    const auto bytes = static_cast<std::size_t>(n_groups - next < 8 ? n_groups - next : 8);
    if (bytes == 8) {
      __builtin_memcpy(&marks, touched + next, 8);
    } else {
      __builtin_memcpy(&marks, touched + next, bytes);
    }
    if (marks == 0) continue;
    __builtin_memset(touched + next, 0, bytes);
    // The lowest bits of the eight bytes, side by side.
    for (std::uint64_t bits = (marks * 0x0102040810204080U) >> 56; bits != 0; bits &= bits - 1) {
      const std::int64_t group = next + __builtin_ctzll(bits);
      prefetch(group * kTouchedIds);
      groups[taken++] = group;
    }
  }
  return taken;
}

/// Calls group(first, count) for every run of kTouchedIds ids below n that a sum was added to, or for all without
/// `touched`; prefetch(first) some time before where they lie apart.
template <class Group, class Prefetch>
inline __attribute__((always_inline)) void walk_groups(std::uint8_t* touched, std::int64_t n, Group group,
                                                       Prefetch prefetch) {
  const std::int64_t whole = n / kTouchedIds * kTouchedIds;
  if (touched == nullptr) {
    for (std::int64_t first = 0; first < whole; first += kTouchedIds) group(first, std::int64_t{kTouchedIds});
    if (whole < n) group(whole, n - whole);
    return;
  }
#if defined(__AVX512BW__)
  // As a rule the second cache holds what belongs to a range of numbers.
  const std::int64_t all_groups = (n + kTouchedIds - 1) / kTouchedIds;
  for (std::int64_t next = 0; next < all_groups; next += 64) {
    const std::int64_t left = all_groups - next;
    const __mmask64 lanes = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
    const __m512i marks = _mm512_maskz_loadu_epi8(lanes, touched + next);
    __mmask64 bits = _mm512_test_epi8_mask(marks, marks);
    if (bits == 0) continue;
    _mm512_mask_storeu_epi8(touched + next, lanes, _mm512_setzero_si512());
    for (; bits != 0; bits &= bits - 1) {
      const std::int64_t first = (next + __builtin_ctzll(bits)) * kTouchedIds;
      if (first < whole) {
        group(first, std::int64_t{kTouchedIds});
      } else {
        group(first, n - whole);
      }
    }
  }
  return;
#endif
  std::int64_t groups[2][kMarkedGroups + 8];
  std::int64_t next = 0;
  const std::int64_t n_groups = (n + kTouchedIds - 1) / kTouchedIds;
  int now = take_marked(touched, n_groups, next, groups[0], prefetch);
  for (int turn = 0; now > 0; turn ^= 1) {
    const int then = take_marked(touched, n_groups, next, groups[turn ^ 1], prefetch);
    for (int g = 0; g < now; ++g) {
      const std::int64_t first = groups[turn][g] * kTouchedIds;
      if (first < whole) {
        group(first, std::int64_t{kTouchedIds});
      } else {
        group(first, n - whole);
      }
    }
    now = then;
  }
}

std::int64_t screen_earlier_counts(const EarlierCounts& sums, const float* norms, const float* thresholds,
                                   std::int64_t n, const PairBound<float>& bound, const PairHits<std::uint32_t>& hits) {
  std::int64_t found = 0;
  std::uint32_t* const all = sums.sums;
  const std::uint32_t* const blocks = sums.blocks;
  std::int32_t* const ids = hits.ids;
  std::uint32_t* const dots = hits.dots;
  const auto base = static_cast<std::int32_t>(hits.base);
  const auto prefetch = [=](std::int64_t first) {
    __builtin_prefetch(all + first);
    __builtin_prefetch(norms + first);
    __builtin_prefetch(thresholds + first);
  };
#if defined(__AVX512F__)
  static_assert(kTouchedIds == 16);
  const __m512 own_norm = _mm512_set1_ps(bound.norm), shrinkage = _mm512_set1_ps(bound.shrinkage);
  const __m512 own_threshold = _mm512_set1_ps(bound.threshold);
  const __m512i least_dot = _mm512_set1_epi32(static_cast<int>(bound.least));
  const __m512i lane_ids = _mm512_add_epi32(_mm512_set1_epi32(base),
                                            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  const auto group = [&](std::int64_t first, std::int64_t count) __attribute__((always_inline)) {
    const __mmask16 lanes = static_cast<__mmask16>((1U << count) - 1);
    __m512i dot = _mm512_maskz_loadu_epi32(lanes, all + first);
    if (blocks != nullptr) dot = _mm512_add_epi32(dot, _mm512_maskz_loadu_epi32(lanes, blocks + first));
    const __m512 norm = _mm512_add_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, norms + first), own_norm), shrinkage);
    const __m512 least = _mm512_min_ps(_mm512_maskz_loadu_ps(lanes, thresholds + first), own_threshold);
    __mmask16 passes = _mm512_mask_cmp_ps_mask(lanes, _mm512_cvtepi32_ps(dot), _mm512_mul_ps(least, norm), _CMP_GE_OQ);
    passes = _mm512_mask_cmpge_epu32_mask(passes, dot, least_dot);
    _mm512_mask_storeu_epi32(all + first, lanes, _mm512_setzero_si512());
    // Some are found in one group out of five: too often to foresee, so nothing is skipped where there are none.
    const __m512i id = _mm512_add_epi32(lane_ids, _mm512_set1_epi32(static_cast<int>(first)));
    _mm512_storeu_si512(ids + found, _mm512_maskz_compress_epi32(passes, id));
    _mm512_storeu_si512(dots + found, _mm512_maskz_compress_epi32(passes, dot));
    found += __builtin_popcount(passes);
  };
#else
  const PairBound<float> own = bound;
  const auto group = [&](std::int64_t first, std::int64_t count) {
    std::uint32_t dot[kTouchedIds] = {};
    std::int32_t passes[kTouchedIds] = {};
    for (std::int64_t i = 0; i < count; ++i) {
      dot[i] = all[first + i] + (blocks == nullptr ? 0 : blocks[first + i]);
      all[first + i] = 0;
    }
    std::int32_t any = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const float least = thresholds[first + i] < own.threshold ? thresholds[first + i] : own.threshold;
      // Below 2^31, where a signed conversion is the fast one.
      const float sum = static_cast<float>(static_cast<std::int32_t>(dot[i]));
      passes[i] = (sum >= least * (norms[first + i] * own.norm + own.shrinkage)) & (dot[i] >= own.least);
      any |= passes[i];
    }
    if (any == 0) return;
    for (std::int64_t i = 0; i < count; ++i) {
      ids[found] = base + static_cast<std::int32_t>(first + i);
      dots[found] = dot[i];
      found += passes[i];
    }
  };
#endif
  walk_groups(sums.touched, n, group, prefetch);
  return found;
}

std::int64_t screen_earlier_reals(const EarlierReals& sums, const double* norms, const float* thresholds,
                                  std::int64_t n, const PairBound<double>& bound, const PairHits<double>& hits) {
  std::int64_t found = 0;
  walk_groups(
      sums.touched, n,
      [&](std::int64_t first, std::int64_t count) {
        double* const own = sums.sums + first;
        std::uint32_t* const support = sums.support == nullptr ? nullptr : sums.support + first;
        std::int32_t passes[kTouchedIds] = {};
        std::int32_t any = 0;
        for (std::int64_t i = 0; i < count; ++i) {
          const float t = thresholds[first + i];
          const double least = t < bound.threshold ? t : bound.threshold;
          passes[i] = own[i] >= least * (norms[first + i] * bound.norm + bound.shrinkage);
        }
        for (std::int64_t i = 0; i < count; ++i) {
          passes[i] &= support == nullptr ? own[i] > 0 : support[i] >= bound.least;
          any |= passes[i];
        }
        for (std::int64_t i = 0; any != 0 && i < count; ++i) {
          hits.ids[found] = static_cast<std::int32_t>(hits.base + first + i);
          hits.dots[found] = own[i];
          found += passes[i];
        }
        for (std::int64_t i = 0; i < count; ++i) own[i] = 0;
        for (std::int64_t i = 0; support != nullptr && i < count; ++i) support[i] = 0;
      },
      [&](std::int64_t first) {
        __builtin_prefetch(sums.sums + first);
        __builtin_prefetch(sums.sums + first + 8);
        __builtin_prefetch(norms + first);
        __builtin_prefetch(norms + first + 8);
        __builtin_prefetch(thresholds + first);
        if (sums.support != nullptr) __builtin_prefetch(sums.support + first);
      });
  return found;
}

#if defined(__AVX512F__)
inline __m512d dots_of(const std::uint32_t* dots, __mmask8 lanes) {
  return _mm512_cvtepu32_pd(_mm256_maskz_loadu_epi32(lanes, dots));
}
inline __m512d dots_of(const double* dots, __mmask8 lanes) { return _mm512_maskz_loadu_pd(lanes, dots); }

/// ranking_key() of scores of which none is a NaN.
inline __m512i keys_of(__m256 scores, __m256i rows) {
  const __m256i bits = _mm256_castps_si256(_mm256_add_ps(scores, _mm256_setzero_ps()));
  const __m256i sign = _mm256_or_si256(_mm256_srai_epi32(bits, 31), _mm256_set1_epi32(INT32_MIN));
  const __m512i high = _mm512_slli_epi64(_mm512_cvtepu32_epi64(_mm256_xor_si256(bits, sign)), 32);
  return _mm512_or_si512(high, _mm512_cvtepu32_epi64(_mm256_xor_si256(rows, _mm256_set1_epi32(-1))));
}
#endif

/// The scores are cosine(): the operations are the same, and each is rounded once.
template <class T>
void share_pairs(const PairHits<T>& hits, std::int64_t n, const PairScore& score, const float* thresholds,
                 KeyedPairs& own, KeyedPairs& others) {
  const T* const dots = hits.dots;
  const std::int32_t* const ids = hits.ids;
  std::int64_t n_own = 0, n_others = 0;
#if defined(__AVX512F__)
  const __m512d unit = _mm512_set1_pd(score.unit), square = _mm512_set1_pd(score.squared);
  const __m512d shrinkage = _mm512_set1_pd(score.shrinkage);
  const __m256 threshold = _mm256_set1_ps(score.threshold);
  const __m256i own_row = _mm256_set1_epi32(score.row);
  for (std::int64_t i = 0; i < n; i += 8) {
    const auto lanes = static_cast<__mmask8>(n - i >= 8 ? 0xFF : (1 << (n - i)) - 1);
    const __m256i id = _mm256_maskz_loadu_epi32(lanes, ids + i);
    const __m512d squares = _mm512_mask_i32gather_pd(_mm512_setzero_pd(), lanes, id, score.squares, 8);
    const __m256 least = _mm256_mmask_i32gather_ps(_mm256_setzero_ps(), lanes, id, thresholds, 4);
    const __m512d norms = _mm512_add_pd(_mm512_sqrt_pd(_mm512_mul_pd(square, squares)), shrinkage);
    const __mmask8 some = _mm512_cmp_pd_mask(norms, _mm512_setzero_pd(), _CMP_NEQ_UQ);
    const __m512d dot = _mm512_mul_pd(dots_of(dots + i, lanes), unit);
    const __m256 scores = _mm512_cvtpd_ps(_mm512_maskz_div_pd(some, dot, norms));
    const __mmask8 for_others = _mm256_mask_cmp_ps_mask(lanes, scores, least, _CMP_GE_OQ);
    const __mmask8 for_own = _mm256_mask_cmp_ps_mask(lanes, scores, threshold, _CMP_GE_OQ);
    _mm512_storeu_si512(others.keys + n_others, _mm512_maskz_compress_epi64(for_others, keys_of(scores, own_row)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(others.ids + n_others), _mm256_maskz_compress_epi32(for_others, id));
    n_others += __builtin_popcount(for_others);
    const __m256i rows = _mm256_mmask_i32gather_epi32(_mm256_setzero_si256(), for_own, id, score.rows, 4);
    _mm512_storeu_si512(own.keys + n_own, _mm512_maskz_compress_epi64(for_own, keys_of(scores, rows)));
    n_own += __builtin_popcount(for_own);
  }
#else
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t id = ids[i];
    const float s =
        cosine(static_cast<double>(dots[i]) * score.unit, score.squared, score.squares[id], score.shrinkage);
    others.ids[n_others] = id;
    others.keys[n_others] = ranking_key(s, score.row);
    own.keys[n_own] = ranking_key(s, score.rows[id]);
    n_others += s >= thresholds[id];
    n_own += s >= score.threshold;
  }
#endif
  own.n = n_own;
  others.n = n_others;
}

void share_counts(const PairHits<std::uint32_t>& hits, std::int64_t n, const PairScore& score, const float* thresholds,
                  KeyedPairs& own, KeyedPairs& others) {
  share_pairs(hits, n, score, thresholds, own, others);
}
void share_reals(const PairHits<double>& hits, std::int64_t n, const PairScore& score, const float* thresholds,
                 KeyedPairs& own, KeyedPairs& others) {
  share_pairs(hits, n, score, thresholds, own, others);
}
