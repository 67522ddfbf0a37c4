// canonical_dot of canonical.hpp with vectors: lane l of the accumulator is its partial sum l.

#if defined(__AVX2__) && !defined(__AVX512F__)
/// The sum of eight partial sums, as canonical_dot adds them.
inline double sum_of(__m256d low, __m256d high) {
  const __m256d four = _mm256_add_pd(low, high);
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}
#endif

double rescore_dot(const float* a, const float* b, std::int64_t n) {
  double sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  std::int64_t k = 0;
#if defined(__AVX512F__)
  __m512d s = _mm512_setzero_pd();
  for (; k + 8 <= n; k += 8) {
    s = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + k)), _mm512_cvtps_pd(_mm256_loadu_ps(b + k)), s);
  }
  _mm512_storeu_pd(sum, s);
#elif defined(__AVX2__)
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
  for (; k + 8 <= n; k += 8) {
    low = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(a + k)), _mm256_cvtps_pd(_mm_loadu_ps(b + k)), low);
    high = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(a + k + 4)), _mm256_cvtps_pd(_mm_loadu_ps(b + k + 4)), high);
  }
  if (k == n) return sum_of(low, high);
  _mm256_storeu_pd(sum, low);
  _mm256_storeu_pd(sum + 4, high);
#endif
  for (; k < n; ++k) sum[k & 7] += static_cast<double>(a[k]) * static_cast<double>(b[k]);
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

#if defined(__AVX2__) && !defined(__AVX512F__)
/// Of one row with several, n a multiple of 8: half of the time goes into the conversions, and that of `a` is shared.
void rescore_dots_of(const float* a, const float* const* b, std::int64_t n, double* dots) {
  __m256d low[kDots], high[kDots];
#pragma GCC unroll 4
  for (int i = 0; i < kDots; ++i) low[i] = high[i] = _mm256_setzero_pd();
  for (std::int64_t k = 0; k < n; k += 8) {
    const __m256d first = _mm256_cvtps_pd(_mm_loadu_ps(a + k)), second = _mm256_cvtps_pd(_mm_loadu_ps(a + k + 4));
#pragma GCC unroll 4
    for (int i = 0; i < kDots; ++i) {
      low[i] = _mm256_fmadd_pd(first, _mm256_cvtps_pd(_mm_loadu_ps(b[i] + k)), low[i]);
      high[i] = _mm256_fmadd_pd(second, _mm256_cvtps_pd(_mm_loadu_ps(b[i] + k + 4)), high[i]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kDots; ++i) dots[i] = sum_of(low[i], high[i]);
}
#endif

/// Several at once: one waits for its additions.
void rescore_dots(const float* const* a, const float* const* b, std::int64_t n, double* dots) {
#if defined(__AVX512F__)
  __m512d s[kDots];
#pragma GCC unroll 8
  for (auto& sum : s) sum = _mm512_setzero_pd();
  std::int64_t k = 0;
  for (; k + 8 <= n; k += 8) {
#pragma GCC unroll 8
    for (int i = 0; i < kDots; ++i) {
      s[i] =
          _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a[i] + k)), _mm512_cvtps_pd(_mm256_loadu_ps(b[i] + k)), s[i]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kDots; ++i) {
    double sum[8];
    _mm512_storeu_pd(sum, s[i]);
    for (std::int64_t j = k; j < n; ++j) sum[j & 7] += static_cast<double>(a[i][j]) * static_cast<double>(b[i][j]);
    dots[i] = ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
  }
#else
#if defined(__AVX2__)
  if (n % 8 == 0 && a[0] == a[1] && a[0] == a[2] && a[0] == a[3]) return rescore_dots_of(a[0], b, n, dots);
#endif
  for (int i = 0; i < kDots; ++i) dots[i] = rescore_dot(a[i], b[i], n);
#endif
}
