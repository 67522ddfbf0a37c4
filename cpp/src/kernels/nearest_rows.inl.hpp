// Squared distances and products of rows: exact ones, and many at once in float32.

double squared_distance_of(const float* a, const float* b, std::int64_t n) {
  typedef double Doubles __attribute__((vector_size(64)));
  typedef float Eight __attribute__((vector_size(32)));
  Doubles sum = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    Eight x, y;
    __builtin_memcpy(&x, a + i, sizeof x);
    __builtin_memcpy(&y, b + i, sizeof y);
    const Doubles difference = __builtin_convertvector(x, Doubles) - __builtin_convertvector(y, Doubles);
    const Doubles square = difference * difference;
    sum += square;
  }
  for (; i < n; ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    const double square = difference * difference;
    sum[i & 7] += square;
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
