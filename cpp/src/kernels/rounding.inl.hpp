// Rows, rounded to integers of a unit, and what that loses.

#if defined(__AVX2__) && !defined(__AVX512F__)
/// x * scale - centre (null: 0).
inline __m256d four_scaled(const float* x, double scale, const double* centre) {
  const __m256d y = _mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(x)), _mm256_set1_pd(scale));
  return centre == nullptr ? y : _mm256_sub_pd(y, _mm256_loadu_pd(centre));
}
#endif

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
#elif defined(__AVX2__)
  __m256d sum_kept = _mm256_setzero_pd(), sum_lost = _mm256_setzero_pd();
  const __m256d limit = _mm256_set1_pd(kLimit);
  for (; j + 4 <= n; j += 4) {
    const __m256d y = four_scaled(x + j, scale, centre == nullptr ? nullptr : centre + j);
    __m256d units = _mm256_round_pd(_mm256_mul_pd(y, _mm256_set1_pd(inverse)), _MM_FROUND_TO_NEAREST_INT);
    units = _mm256_max_pd(_mm256_min_pd(units, limit), _mm256_sub_pd(_mm256_setzero_pd(), limit));
    const __m128i whole = _mm256_cvtpd_epi32(units), halves = _mm_packs_epi32(whole, whole);
    if constexpr (sizeof(Rounded) == 1) {
      const std::int32_t bytes = _mm_cvtsi128_si32(_mm_packs_epi16(halves, halves));
      __builtin_memcpy(out + j, &bytes, sizeof bytes);
    } else {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(out + j), halves);
    }
    const __m256d value = _mm256_mul_pd(units, _mm256_set1_pd(unit)), loss = _mm256_sub_pd(y, value);
    sum_kept = _mm256_fmadd_pd(value, value, sum_kept);
    sum_lost = _mm256_fmadd_pd(loss, loss, sum_lost);
  }
  double lanes[8];
  _mm256_storeu_pd(lanes, sum_kept);
  _mm256_storeu_pd(lanes + 4, sum_lost);
  for (int lane = 0; lane < 4; ++lane) {
    kept += lanes[lane];
    lost += lanes[lane + 4];
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
#elif defined(__AVX2__)
  __m256d most = _mm256_setzero_pd();
  for (; j + 4 <= n; j += 4) {
    const __m256d y = four_scaled(x + j, scale, centre == nullptr ? nullptr : centre + j);
    most = _mm256_max_pd(most, _mm256_andnot_pd(_mm256_set1_pd(-0.0), y));
  }
  double lanes[4];
  _mm256_storeu_pd(lanes, most);
  for (const double lane : lanes) largest = lane > largest ? lane : largest;
#endif
  for (; j < n; ++j) {
    const double y = __builtin_fabs(x[j] * scale - (centre == nullptr ? 0.0 : centre[j]));
    largest = y > largest ? y : largest;
  }
  return largest;
}
