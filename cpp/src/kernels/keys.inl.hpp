// The largest of few keys, all different, as ranking_key() makes them, and their order.

inline std::int64_t count_from(const std::uint64_t* keys, std::int64_t n, std::uint64_t least) {
#if defined(__AVX512F__)
  const __m512i bound = _mm512_set1_epi64(static_cast<long long>(least));
  std::int64_t count = 0, i = 0;
  for (; i + 8 <= n; i += 8) {
    count += __builtin_popcount(_mm512_cmpge_epu64_mask(_mm512_loadu_si512(keys + i), bound));
  }
  const auto lanes = static_cast<__mmask8>((1 << (n - i)) - 1);
  const __m512i rest = _mm512_maskz_loadu_epi64(lanes, keys + i);
  return count + __builtin_popcount(_mm512_mask_cmpge_epu64_mask(lanes, rest, bound));
#else
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) count += keys[i] >= least;
  return count;
#endif
}

std::int64_t keep_largest(std::uint64_t* keys, std::int64_t n, std::int64_t k, std::uint64_t* beyond) {
  if (n <= k) return n;
  std::uint64_t smallest = keys[0], largest = keys[0];
  for (std::int64_t i = 1; i < n; ++i) {
    smallest = keys[i] < smallest ? keys[i] : smallest;
    largest = keys[i] > largest ? keys[i] : largest;
  }
  // Bit by bit from the highest in which they differ: do k keys reach what was found so far with this bit set?
  const int highest = 63 - __builtin_clzll(smallest ^ largest);
  std::uint64_t least = smallest >> highest >> 1 << highest << 1;
  const std::int64_t enough = k + (n - k) / 4;  // a few too many do no harm
  for (std::uint64_t bit = std::uint64_t{1} << highest; bit != 0; bit >>= 1) {
    const std::int64_t count = count_from(keys, n, least | bit);
    if (count < k) continue;
    least |= bit;
    if (count <= enough) break;
  }
  std::int64_t kept = 0;
#if defined(__AVX512F__)
  for (std::int64_t i = 0; i < n; i += 8) {
    const auto lanes = static_cast<__mmask8>(n - i >= 8 ? 0xFF : (1 << (n - i)) - 1);
    const __m512i key = _mm512_maskz_loadu_epi64(lanes, keys + i);
    const __mmask8 reach = _mm512_mask_cmpge_epu64_mask(lanes, key, _mm512_set1_epi64(static_cast<long long>(least)));
    const int some = __builtin_popcount(reach);
    _mm512_mask_storeu_epi64(keys + kept, static_cast<__mmask8>((1 << some) - 1),
                             _mm512_maskz_compress_epi64(reach, key));
    kept += some;
  }
#else
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint64_t key = keys[i];
    keys[kept] = key;
    kept += key >= least;
  }
#endif
  *beyond = least - 1;
  return kept;
}

#if defined(__AVX512F__)
constexpr std::int64_t kMostRanked = 256;  // as many comparisons as the square
#else
constexpr std::int64_t kMostRanked = 0;
#endif

void rank_keys(const std::uint64_t* keys, std::int64_t n, std::uint64_t* sorted) {
  // Those of which i are larger are the i-th: no comparison is a branch that nobody can foresee.
  for (std::int64_t i = 0; i < n; ++i) sorted[count_from(keys, n, keys[i]) - 1] = keys[i];
}
