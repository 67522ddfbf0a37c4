// The integer screen: rows rounded to signed bytes, multiplied four dimensions to the instruction and summed exactly.
// Items are stored with 128 added, for vpdpbusd takes one operand without a sign; the caller's thresholds allow for it.

/// out[j] = x[j] * scale - centre[j] (centre null: 0) in whole steps, at most 127 either way; and what that lost.
QuantisedNorms quantise_row(const float* x, double scale, const double* centre, double step, std::int64_t n,
                            std::int8_t* out) {
  const double inverse = step > 0 ? 1 / step : 0;
  double value = 0, lost = 0;
  std::int64_t j = 0;
#if defined(__AVX512F__)
  __m512d values = _mm512_setzero_pd(), losses = _mm512_setzero_pd();
  const __m512d limit = _mm512_set1_pd(127);
  for (; j + 8 <= n; j += 8) {
    __m512d y = _mm512_mul_pd(_mm512_cvtps_pd(_mm256_loadu_ps(x + j)), _mm512_set1_pd(scale));
    if (centre != nullptr) y = _mm512_sub_pd(y, _mm512_loadu_pd(centre + j));
    __m512d steps = _mm512_roundscale_pd(_mm512_mul_pd(y, _mm512_set1_pd(inverse)), _MM_FROUND_TO_NEAREST_INT);
    steps = _mm512_max_pd(_mm512_min_pd(steps, limit), _mm512_sub_pd(_mm512_setzero_pd(), limit));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + j), _mm256_cvtepi32_epi8(_mm512_cvtpd_epi32(steps)));
    const __m512d kept = _mm512_mul_pd(steps, _mm512_set1_pd(step)), loss = _mm512_sub_pd(y, kept);
    values = _mm512_fmadd_pd(kept, kept, values);
    losses = _mm512_fmadd_pd(loss, loss, losses);
  }
  value = _mm512_reduce_add_pd(values);
  lost = _mm512_reduce_add_pd(losses);
#endif
  for (; j < n; ++j) {
    const double y = x[j] * scale - (centre == nullptr ? 0.0 : centre[j]);
    double steps = __builtin_rint(y * inverse);
    steps = steps > 127 ? 127 : steps < -127 ? -127 : steps;
    out[j] = static_cast<std::int8_t>(steps);
    const double kept = steps * step, loss = y - kept;
    value += kept * kept;
    lost += loss * loss;
  }
  return {value, lost};
}

/// The largest |x[j] * scale - centre[j]|, or a little more.
float largest_element(const float* x, float scale, const float* centre, std::int64_t n) {
  float largest = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    const float y = __builtin_fabsf(x[j] * scale - (centre == nullptr ? 0.0F : centre[j]));
    largest = y > largest ? y : largest;
  }
  return largest;
}

#if defined(__AVX512VNNI__)
constexpr bool kHasInt8Screen = true;

template <int kRows>
int screen_int8_rows(const std::int8_t* queries, const std::uint8_t* items, std::int64_t steps,
                     const std::int32_t* thresholds, const IntegerHits& hits) {
  __m512i sums[kRows][2];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_si512();
  for (std::int64_t s = 0; s < steps; ++s) {
    const __m512i x0 = _mm512_loadu_si512(items), x1 = _mm512_loadu_si512(items + 64);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      std::int32_t four;
      __builtin_memcpy(&four, queries + 4 * r, sizeof four);
      const __m512i q = _mm512_set1_epi32(four);
      sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], x0, q);
      sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], x1, q);
    }
    queries += 4 * kRows;
    items += 128;
  }
  unsigned masks[kRows];
  unsigned any = 0;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const __m512i threshold = _mm512_set1_epi32(thresholds[r]);
    masks[r] = static_cast<unsigned>(_mm512_cmpge_epi32_mask(sums[r][0], threshold)) |
               static_cast<unsigned>(_mm512_cmpge_epi32_mask(sums[r][1], threshold)) << 16;
    any |= masks[r];
  }
  if (any == 0) return 0;
  int total = 0;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    std::int32_t all[32];
    _mm512_storeu_si512(all, sums[r][0]);
    _mm512_storeu_si512(all + 16, sums[r][1]);
    int count = 0;
    for (unsigned mask = masks[r]; mask != 0; mask &= mask - 1, ++count) {
      const int lane = __builtin_ctz(mask);
      hits.sums[r * 32 + count] = all[lane];
      hits.lanes[r * 32 + count] = lane;
    }
    hits.counts[r] = count;
    total += count;
  }
  return total;
}

int screen_int8(int height, const std::int8_t* queries, const std::uint8_t* items, std::int64_t steps,
                const std::int32_t* thresholds, const IntegerHits& hits) {
  switch (height) {
    case 1:
      return screen_int8_rows<1>(queries, items, steps, thresholds, hits);
    case 2:
      return screen_int8_rows<2>(queries, items, steps, thresholds, hits);
    case 4:
      return screen_int8_rows<4>(queries, items, steps, thresholds, hits);
    case 8:
      return screen_int8_rows<8>(queries, items, steps, thresholds, hits);
    default:
      return screen_int8_rows<14>(queries, items, steps, thresholds, hits);
  }
}
#endif
