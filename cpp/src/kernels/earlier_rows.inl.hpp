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

/// Calls add(weight, begin, end) for the entries of every list that stand before that of the row.
template <class Entry, class Add>
inline __attribute__((always_inline)) void walk_earlier(const PackedLists& lists, const RowEntries& row, Add add) {
  const Entry* const entries = static_cast<const Entry*>(lists.entries);
  for (std::int64_t j = 0; j < row.n; ++j) {
    if (j + kEarlierAhead < row.n) {
      const Entry* const begin = entries + lists.begins[row.columns[j + kEarlierAhead]];
      const Entry* const end = entries + row.places[j + kEarlierAhead];
      constexpr std::int64_t kStep = 64 / sizeof(Entry);
      for (std::int64_t line = 0; line < kEarlierLines && begin + line * kStep < end; ++line) {
        __builtin_prefetch(begin + line * kStep);
      }
    }
    // A list whose first entries are in blocks may begin behind the row's own.
    add(row.values[j], entries + lists.begins[row.columns[j]], entries + row.places[j]);
  }
}

template <bool kMark, class Entry>
void add_earlier_counts_of(const PackedLists& lists, const RowEntries& row, float scale, std::uint32_t* sums,
                           std::uint8_t* touched) {
  walk_earlier<Entry>(lists, row, [&](float value, const Entry* begin, const Entry* end) {
    const std::uint32_t weight = static_cast<std::uint32_t>(value * scale);
#pragma GCC unroll 8
    for (const Entry* e = begin; e < end; ++e) {
      sums[e->id()] += e->times(weight);
      if constexpr (kMark) touched[e->id() / kTouchedIds] = 1;
    }
  });
}

template <bool kMark>
void add_earlier_counts_as(const PackedLists& lists, const RowEntries& row, float scale, std::uint32_t* sums,
                           std::uint8_t* touched) {
  switch (lists.kind) {
    case EntryKind::kId16:
      return add_earlier_counts_of<kMark, Id16>(lists, row, scale, sums, touched);
    case EntryKind::kId32:
      return add_earlier_counts_of<kMark, Id32>(lists, row, scale, sums, touched);
    case EntryKind::kId16Value16:
      return add_earlier_counts_of<kMark, Id16Value16>(lists, row, scale, sums, touched);
    case EntryKind::kId24Value8:
      return add_earlier_counts_of<kMark, Id24Value8>(lists, row, scale, sums, touched);
    default:
      return add_earlier_counts_of<kMark, Id32Value32>(lists, row, scale, sums, touched);
  }
}

void add_earlier_counts(const PackedLists& lists, const RowEntries& row, float scale, std::uint32_t* sums,
                        std::uint8_t* touched) {
  if (touched != nullptr) return add_earlier_counts_as<true>(lists, row, scale, sums, touched);
  add_earlier_counts_as<false>(lists, row, scale, sums, touched);
}

template <bool kMark, bool kSupport>
void add_earlier_reals_of(const PackedLists& lists, const RowEntries& row, double* sums, std::uint32_t* support,
                          std::uint8_t* touched) {
  walk_earlier<Id32Real>(lists, row, [&](float value, const Id32Real* begin, const Id32Real* end) {
    const double weight = value;
#pragma GCC unroll 8
    for (const Id32Real* e = begin; e < end; ++e) {
      sums[e->id()] += weight * e->value();
      if constexpr (kSupport) ++support[e->id()];
      if constexpr (kMark) touched[e->id() / kTouchedIds] = 1;
    }
  });
}

void add_earlier_reals(const PackedLists& lists, const RowEntries& row, double* sums, std::uint32_t* support,
                       std::uint8_t* touched) {
  if (support != nullptr) {
    if (touched != nullptr) return add_earlier_reals_of<true, true>(lists, row, sums, support, touched);
    return add_earlier_reals_of<false, true>(lists, row, sums, support, touched);
  }
  if (touched != nullptr) return add_earlier_reals_of<true, false>(lists, row, sums, support, touched);
  add_earlier_reals_of<false, false>(lists, row, sums, support, touched);
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
  walk_groups(
      sums.touched, n,
      [&](std::int64_t first, std::int64_t count) {
        std::uint32_t* const own = sums.sums + first;
#if defined(__AVX512F__)
        static_assert(kTouchedIds == 16);
        const __mmask16 lanes = static_cast<__mmask16>((1U << count) - 1);
        __m512i dot = _mm512_maskz_loadu_epi32(lanes, own);
        if (sums.blocks != nullptr) dot = _mm512_add_epi32(dot, _mm512_maskz_loadu_epi32(lanes, sums.blocks + first));
        const __m512 sum = _mm512_cvtepi32_ps(dot);
        const __m512 norm =
            _mm512_add_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, norms + first), _mm512_set1_ps(bound.norm)),
                          _mm512_set1_ps(bound.shrinkage));
        const __m512 least =
            _mm512_min_ps(_mm512_maskz_loadu_ps(lanes, thresholds + first), _mm512_set1_ps(bound.threshold));
        __mmask16 passes = _mm512_mask_cmp_ps_mask(lanes, sum, _mm512_mul_ps(least, norm), _CMP_GE_OQ);
        passes = _mm512_mask_cmpge_epu32_mask(passes, dot, _mm512_set1_epi32(static_cast<int>(bound.least)));
        _mm512_mask_storeu_epi32(own, lanes, _mm512_setzero_si512());
        if (passes == 0) return;
        const __m512i id = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(hits.base + first)),
                                            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        _mm512_storeu_si512(hits.ids + found, _mm512_maskz_compress_epi32(passes, id));
        _mm512_storeu_si512(hits.dots + found, _mm512_maskz_compress_epi32(passes, dot));
        _mm512_storeu_ps(hits.scores + found, _mm512_maskz_compress_ps(passes, _mm512_div_ps(sum, norm)));
        found += __builtin_popcount(passes);
#else
        std::uint32_t dot[kTouchedIds] = {};
        std::int32_t passes[kTouchedIds] = {};
        for (std::int64_t i = 0; i < count; ++i) {
          dot[i] = own[i] + (sums.blocks == nullptr ? 0 : sums.blocks[first + i]);
          own[i] = 0;
        }
        std::int32_t any = 0;
        for (std::int64_t i = 0; i < count; ++i) {
          const float least = thresholds[first + i] < bound.threshold ? thresholds[first + i] : bound.threshold;
          // Below 2^31, where a signed conversion is the fast one.
          const float sum = static_cast<float>(static_cast<std::int32_t>(dot[i]));
          passes[i] = (sum >= least * (norms[first + i] * bound.norm + bound.shrinkage)) & (dot[i] >= bound.least);
          any |= passes[i];
        }
        if (any == 0) return;
        for (std::int64_t i = 0; i < count; ++i) {
          hits.ids[found] = static_cast<std::int32_t>(hits.base + first + i);
          hits.dots[found] = dot[i];
          hits.scores[found] = static_cast<float>(dot[i]) / (norms[first + i] * bound.norm + bound.shrinkage);
          found += passes[i];
        }
#endif
      },
      [&](std::int64_t first) {
        __builtin_prefetch(sums.sums + first);
        __builtin_prefetch(norms + first);
        __builtin_prefetch(thresholds + first);
      });
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
          const double norm = norms[first + i] * bound.norm + bound.shrinkage;
          hits.ids[found] = static_cast<std::int32_t>(hits.base + first + i);
          hits.dots[found] = own[i];
          hits.scores[found] = norm > 0 ? static_cast<float>(own[i] / norm) : 0.0F;
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
