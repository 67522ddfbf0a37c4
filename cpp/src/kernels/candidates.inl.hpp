// Selection among the candidates of a query: branches on random numbers would cost more than the arithmetic.

/// Ordered as the numbers are.
inline std::int32_t order_key(float value) {
  std::int32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

/// The k-th largest of value_at(i). Bit by bit from the highest that differs: how many reach what has been found so far
/// with this bit set?
template <class ValueAt>
float kth_largest_of(std::int64_t n, std::int64_t k, std::int32_t* keys, ValueAt value_at) {
  std::int32_t smallest = 0x7fffffff, largest = -0x7fffffff - 1;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t key = order_key(value_at(i));
    keys[i] = key;
    smallest = key < smallest ? key : smallest;
    largest = key > largest ? key : largest;
  }
  // Unsigned from here on; the sign bit is the highest one then.
  constexpr std::uint32_t kSign = 0x80000000U;
  const std::uint32_t low = static_cast<std::uint32_t>(smallest) ^ kSign;
  const std::uint32_t high = static_cast<std::uint32_t>(largest) ^ kSign;
  std::uint32_t found = low;
  std::int32_t kth = smallest;
  if (low != high) {
    const int highest = 31 - __builtin_clz(low ^ high);
    found = low >> highest >> 1 << highest << 1;  // what all have in common
    for (std::uint32_t bit = 1U << highest; bit != 0; bit >>= 1) {
      const auto candidate = static_cast<std::int32_t>((found | bit) ^ kSign);
      std::int32_t count = 0;
      for (std::int64_t i = 0; i < n; ++i) count += keys[i] >= candidate;
      if (count >= k) found |= bit;
      if (count == k) break;  // it parts the k largest from the rest
    }
    const auto reached = static_cast<std::int32_t>(found ^ kSign);
    kth = largest;
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int32_t key = keys[i] >= reached ? keys[i] : largest;
      kth = key < kth ? key : kth;
    }
  }
  const std::int32_t bits = kth ^ ((kth >> 31) & 0x7fffffff);
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

float kth_lower_end(const float* values, const float* bounds, std::int64_t n, std::int64_t k, std::int32_t* keys) {
  if (bounds == nullptr) return kth_largest_of(n, k, keys, [&](std::int64_t i) { return values[i]; });
  return kth_largest_of(n, k, keys, [&](std::int64_t i) { return values[i] - bounds[i]; });
}

#if defined(__AVX2__) && !defined(__AVX512F__)
/// Per mask of eight lanes, its lanes in their order, a byte each; then whatever.
struct LaneOrders {
  std::uint64_t of[256];
  constexpr LaneOrders() : of{} {
    for (unsigned mask = 0; mask < 256; ++mask) {
      int kept = 0;
      for (std::uint64_t lane = 0; lane < 8; ++lane) {
        if ((mask >> lane & 1) != 0) of[mask] |= lane << 8 * kept++;
      }
    }
  }
};
constexpr LaneOrders kLaneOrders;
#endif

std::int64_t keep_reaching(float least, std::int64_t n, float* values, float* bounds, std::int32_t* ids) {
  std::int64_t kept = 0;
#if defined(__AVX512F__)
  const __m512 threshold = _mm512_set1_ps(least);
  for (std::int64_t i = 0; i < n; i += 16) {
    const auto inside = static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
    const __m512 v = _mm512_loadu_ps(values + i), b = _mm512_loadu_ps(bounds + i);
    const __m512i id = _mm512_loadu_si512(ids + i);
    const __mmask16 reaches = _mm512_mask_cmp_ps_mask(inside, _mm512_add_ps(v, b), threshold, _CMP_GE_OQ);
    // Whole registers are stored: what is beyond was read already, or is kSpareCandidates.
    _mm512_storeu_ps(values + kept, _mm512_maskz_compress_ps(reaches, v));
    _mm512_storeu_ps(bounds + kept, _mm512_maskz_compress_ps(reaches, b));
    _mm512_storeu_si512(ids + kept, _mm512_maskz_compress_epi32(reaches, id));
    kept += __builtin_popcount(reaches);
  }
#elif defined(__AVX2__)
  const __m256 threshold = _mm256_set1_ps(least);
  for (std::int64_t i = 0; i < n; i += 8) {
    const unsigned inside = n - i >= 8 ? 0xffU : (1U << (n - i)) - 1;
    const __m256 v = _mm256_loadu_ps(values + i), b = _mm256_loadu_ps(bounds + i);
    const __m256 id = _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(ids + i)));
    const __m256 compared = _mm256_cmp_ps(_mm256_add_ps(v, b), threshold, _CMP_GE_OQ);
    const unsigned reaches = static_cast<unsigned>(_mm256_movemask_ps(compared)) & inside;
    const auto packed = static_cast<long long>(kLaneOrders.of[reaches]);
    const __m256i order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(packed));
    _mm256_storeu_ps(values + kept, _mm256_permutevar8x32_ps(v, order));
    _mm256_storeu_ps(bounds + kept, _mm256_permutevar8x32_ps(b, order));
    _mm256_storeu_ps(reinterpret_cast<float*>(ids + kept), _mm256_permutevar8x32_ps(id, order));
    kept += __builtin_popcount(reaches);
  }
#else
  for (std::int64_t i = 0; i < n; ++i) {
    const bool reaches = values[i] + bounds[i] >= least;
    values[kept] = values[i];
    bounds[kept] = bounds[i];
    ids[kept] = ids[i];
    kept += reaches;
  }
#endif
  return kept;
}

std::int64_t places_between(const std::uint32_t* slots, std::int64_t n, std::uint32_t begin, std::uint32_t length,
                            std::uint32_t* out) {
  std::int64_t found = 0;
#if defined(__AVX512F__)
  const __m512i first = _mm512_set1_epi32(static_cast<int>(begin)), end = _mm512_set1_epi32(static_cast<int>(length));
  for (std::int64_t i = 0; i < n; i += 16) {
    const auto inside = static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
    const __m512i place = _mm512_sub_epi32(_mm512_maskz_loadu_epi32(inside, slots + i), first);
    const __mmask16 between = _mm512_mask_cmplt_epu32_mask(inside, place, end);
    _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(between, place));
    found += __builtin_popcount(between);
  }
#else
  for (std::int64_t i = 0; i < n; ++i) {
    out[found] = slots[i] - begin;
    found += out[found] < length ? 1 : 0;  // not a branch: others lie between them as they like
  }
#endif
  return found;
}
