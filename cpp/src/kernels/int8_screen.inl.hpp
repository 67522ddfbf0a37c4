// The integer screen: rows rounded to signed bytes, multiplied four dimensions to the instruction and summed exactly.

RoundedNorms round_row(const float* x, double scale, const double* centre, double unit, std::int64_t n,
                       std::int8_t* out) {
  const double inverse = unit > 0 ? 1 / unit : 0;
  double kept = 0, lost = 0;
  std::int64_t j = 0;
#if defined(__AVX512F__)
  __m512d sum_kept = _mm512_setzero_pd(), sum_lost = _mm512_setzero_pd();
  const __m512d limit = _mm512_set1_pd(127);
  for (; j + 8 <= n; j += 8) {
    __m512d y = _mm512_mul_pd(_mm512_cvtps_pd(_mm256_loadu_ps(x + j)), _mm512_set1_pd(scale));
    if (centre != nullptr) y = _mm512_sub_pd(y, _mm512_loadu_pd(centre + j));
    __m512d units = _mm512_roundscale_pd(_mm512_mul_pd(y, _mm512_set1_pd(inverse)), _MM_FROUND_TO_NEAREST_INT);
    units = _mm512_max_pd(_mm512_min_pd(units, limit), _mm512_sub_pd(_mm512_setzero_pd(), limit));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + j), _mm256_cvtepi32_epi8(_mm512_cvtpd_epi32(units)));
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
    units = units > 127 ? 127 : units < -127 ? -127 : units;
    out[j] = static_cast<std::int8_t>(units);
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

#if defined(__AVX512VNNI__)
template <int kHeight>
int screen_int8_panel(const std::int8_t* queries, const std::uint8_t* items, std::int64_t steps,
                      const std::int32_t* thresholds, const IntegerHits& hits) {
  __m512i sums[kHeight][2];
#pragma GCC unroll 16
  for (int r = 0; r < kHeight; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_si512();
  for (std::int64_t s = 0; s < steps; ++s) {
    const __m512i x0 = _mm512_loadu_si512(items), x1 = _mm512_loadu_si512(items + 64);
#pragma GCC unroll 16
    for (int r = 0; r < kHeight; ++r) {
      std::int32_t four;
      __builtin_memcpy(&four, queries + 4 * r, sizeof four);
      const __m512i q = _mm512_set1_epi32(four);
      sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], x0, q);
      sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], x1, q);
    }
    queries += 4 * kHeight;
    items += 128;
  }
  // Without this GCC 12 keeps the sums in memory while it adds, at a third of the speed (benchmarks/micro).
#pragma GCC unroll 16
  for (int r = 0; r < kHeight; ++r) asm volatile("" : "+v"(sums[r][0]), "+v"(sums[r][1]));
  unsigned masks[kHeight];
  unsigned any = 0;
#pragma GCC unroll 16
  for (int r = 0; r < kHeight; ++r) {
    const __m512i threshold = _mm512_set1_epi32(thresholds[r]);
    masks[r] = static_cast<unsigned>(_mm512_cmpge_epi32_mask(sums[r][0], threshold)) |
               static_cast<unsigned>(_mm512_cmpge_epi32_mask(sums[r][1], threshold)) << 16;
    any |= masks[r];
  }
  if (any == 0) return 0;
  int total = 0;
#pragma GCC unroll 16
  for (int r = 0; r < kHeight; ++r) {
    alignas(64) std::int32_t all[kInt8Items];
    _mm512_store_si512(all, sums[r][0]);
    _mm512_store_si512(all + 16, sums[r][1]);
    int count = 0;
    for (unsigned mask = masks[r]; mask != 0; mask &= mask - 1, ++count) {
      const int lane = __builtin_ctz(mask);
      hits.sums[r * kInt8Items + count] = all[lane];
      hits.lanes[r * kInt8Items + count] = lane;
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
      return screen_int8_panel<1>(queries, items, steps, thresholds, hits);
    case 2:
      return screen_int8_panel<2>(queries, items, steps, thresholds, hits);
    case 4:
      return screen_int8_panel<4>(queries, items, steps, thresholds, hits);
    case 8:
      return screen_int8_panel<8>(queries, items, steps, thresholds, hits);
    default:
      return screen_int8_panel<14>(queries, items, steps, thresholds, hits);
  }
}
constexpr auto kScreenInt8 = screen_int8;
#else
constexpr decltype(KernelTable::screen_int8) kScreenInt8 = nullptr;
#endif
