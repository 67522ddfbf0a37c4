// Squared distances and products of rows: exact ones, and many at once in float32.

double squared_distance_of(const float* a, const float* b, std::int64_t n) {
  double sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  std::int64_t k = 0;
#if defined(__AVX512F__)
  __m512d s = _mm512_setzero_pd();
  for (; k + 8 <= n; k += 8) {
    const __m512d d = _mm512_sub_pd(_mm512_cvtps_pd(_mm256_loadu_ps(a + k)), _mm512_cvtps_pd(_mm256_loadu_ps(b + k)));
    s = _mm512_add_pd(s, _mm512_mul_pd(d, d));
  }
  _mm512_storeu_pd(sum, s);
#elif defined(__AVX2__)
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
  for (; k + 8 <= n; k += 8) {
    const __m256d first = _mm256_sub_pd(_mm256_cvtps_pd(_mm_loadu_ps(a + k)), _mm256_cvtps_pd(_mm_loadu_ps(b + k)));
    const __m256d second =
        _mm256_sub_pd(_mm256_cvtps_pd(_mm_loadu_ps(a + k + 4)), _mm256_cvtps_pd(_mm_loadu_ps(b + k + 4)));
    low = _mm256_add_pd(low, _mm256_mul_pd(first, first));
    high = _mm256_add_pd(high, _mm256_mul_pd(second, second));
  }
  _mm256_storeu_pd(sum, low);
  _mm256_storeu_pd(sum + 4, high);
#endif
  for (; k < n; ++k) {
    const double difference = static_cast<double>(a[k]) - static_cast<double>(b[k]);
    sum[k & 7] += difference * difference;
  }
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/// Of kNearQueries queries and two items, which share their loads.
template <bool kDistance>
inline __attribute__((always_inline)) void near_pairs(const float* const* queries, const float* first,
                                                      const float* second, std::int64_t n, float* of_first,
                                                      float* of_second) {
  Floats sums[2 * kNearQueries];
#pragma GCC unroll 8
  for (auto& sum : sums) sum = zero();
  std::int64_t i = 0;
  for (; i + kFloats <= n; i += kFloats) {
    const Floats x = load(first + i), y = load(second + i);
#pragma GCC unroll 4
    for (int q = 0; q < kNearQueries; ++q) {
      const Floats query = load(queries[q] + i);
      if (kDistance) {
        const Floats to_first = subtract(query, x), to_second = subtract(query, y);
        sums[q] = multiply_add(to_first, to_first, sums[q]);
        sums[kNearQueries + q] = multiply_add(to_second, to_second, sums[kNearQueries + q]);
      } else {
        sums[q] = multiply_add(query, x, sums[q]);
        sums[kNearQueries + q] = multiply_add(query, y, sums[kNearQueries + q]);
      }
    }
  }
  sum_four(sums, of_first);
  sum_four(sums + kNearQueries, of_second);
  for (; i < n; ++i) {
    for (int q = 0; q < kNearQueries; ++q) {
      const float query = queries[q][i];
      of_first[q] += kDistance ? (query - first[i]) * (query - first[i]) : query * first[i];
      of_second[q] += kDistance ? (query - second[i]) * (query - second[i]) : query * second[i];
    }
  }
}

template <bool kDistance>
void near_block(const float* const* queries, const float* const* items, std::int64_t n_items, std::int64_t n,
                float* values) {
  float found[2][kNearQueries];
  for (std::int64_t i = 0; i < n_items; i += 2) {
    const bool two = i + 1 < n_items;
    near_pairs<kDistance>(queries, items[i], items[two ? i + 1 : i], n, found[0], found[1]);
    for (int q = 0; q < kNearQueries; ++q) {
      values[q * n_items + i] = found[0][q];
      if (two) values[q * n_items + i + 1] = found[1][q];
    }
  }
}
