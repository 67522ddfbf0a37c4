// A sparse row times a sparse matrix, into float64 sums that begin at kNoTerm; and the largest of every block of them.

template <class T>
void add_products(const ProductLists<T>& lists, const std::int32_t* columns, const T* weights, std::int64_t n,
                  double* sums) {
  walk_lists(lists.ids, lists.values, lists.indptr, columns, n,
             [&](std::int64_t j, std::int64_t begin, std::int64_t end) {
               const double weight = weights[j];
#pragma GCC unroll 4
               for (std::int64_t e = begin; e < end; ++e) {
                 // + 0.0: a term of -0.0 would leave a sum that looks as if there was none.
                 sums[lists.ids[e]] += weight * static_cast<double>(lists.values[e]) + 0.0;
               }
             });
}

/// kNoTerm counts as -inf; a NaN does not count.
void block_maxima(const double* sums, std::int64_t n, double* maxima) {
  typedef double Doubles __attribute__((vector_size(32)));
  typedef std::int64_t Words __attribute__((vector_size(32)));
  constexpr double kLeast = -__builtin_inf();
  const auto value_of = [](double x) { return __builtin_signbit(x) && x == 0 ? kLeast : x; };
  for (std::int64_t first = 0; first < n; first += kProductBlock) {
    double largest = kLeast;
    if (first + kProductBlock <= n) {
      const Words no_term = Words{} + (std::int64_t{1} << 63);
      Doubles even = Doubles{} + kLeast, odd = even;
      for (std::int64_t i = first; i < first + kProductBlock; i += 8) {
        Doubles x, y;
        __builtin_memcpy(&x, sums + i, sizeof x);
        __builtin_memcpy(&y, sums + i + 4, sizeof y);
        x = reinterpret_cast<Words>(x) == no_term ? Doubles{} + kLeast : x;
        y = reinterpret_cast<Words>(y) == no_term ? Doubles{} + kLeast : y;
        even = x > even ? x : even;
        odd = y > odd ? y : odd;
      }
      even = odd > even ? odd : even;
      for (int lane = 0; lane < 4; ++lane) largest = even[lane] > largest ? even[lane] : largest;
    } else {
      for (std::int64_t i = first; i < n; ++i) largest = value_of(sums[i]) > largest ? value_of(sums[i]) : largest;
    }
    *maxima++ = largest;
  }
}
