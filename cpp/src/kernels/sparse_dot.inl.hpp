// A sparse row times a sparse matrix, into one sum per id; and the search for the sums that are large enough.

// The lists of a row lie far apart: without a hint every one of them begins with a cache miss.
constexpr std::int64_t kListsAhead = 4;
constexpr int kLinesAhead = 8;

template <class T>
inline void prefetch(const T* begin, std::int64_t n) {
  const char* line = reinterpret_cast<const char*>(begin);
  const char* const end = reinterpret_cast<const char*>(begin + n);
  for (int i = 0; i < kLinesAhead && line < end; ++i, line += 64) __builtin_prefetch(line);
}

/// Calls add(j, begin, end) for the entries [begin, end) of every list of columns[j], in that order.
template <class Id, class Value, class Add>
inline __attribute__((always_inline)) void walk_lists(const Id* ids, const Value* values, const std::int64_t* indptr,
                                                      const std::int32_t* columns, std::int64_t n, Add add) {
  for (std::int64_t j = 0; j < n; ++j) {
    if (j + kListsAhead < n) {
      const std::int64_t begin = indptr[columns[j + kListsAhead]], end = indptr[columns[j + kListsAhead] + 1];
      prefetch(ids + begin, end - begin);
      if (values != nullptr) prefetch(values + begin, end - begin);
    }
    add(j, indptr[columns[j]], indptr[columns[j] + 1]);
  }
}

template <class Id>
void add_counts_of(const Id* ids, const std::int64_t* indptr, const std::int32_t* columns, std::int64_t n,
                   std::uint32_t* sums) {
  walk_lists(ids, static_cast<const float*>(nullptr), indptr, columns, n,
             [&](std::int64_t, std::int64_t begin, std::int64_t end) {
#pragma GCC unroll 8
               for (std::int64_t e = begin; e < end; ++e) ++sums[ids[e]];
             });
}

void add_counts(const PostingLists& lists, const std::int32_t* columns, std::int64_t n, std::uint32_t* sums) {
  if (lists.ids == nullptr) return add_counts_of(lists.narrow_ids, lists.indptr, columns, n, sums);
  add_counts_of(lists.ids, lists.indptr, columns, n, sums);
}

template <class Id>
void add_integers_of(const Id* ids, const PostingLists& lists, const std::int32_t* columns, const float* weights,
                     float scale, std::int64_t n, std::uint32_t* sums) {
  walk_lists(ids, lists.integers, lists.indptr, columns, n, [&](std::int64_t j, std::int64_t begin, std::int64_t end) {
    const std::uint32_t weight = static_cast<std::uint32_t>(weights[j] * scale);
#pragma GCC unroll 8
    for (std::int64_t e = begin; e < end; ++e) sums[ids[e]] += weight * lists.integers[e];
  });
}

void add_integers(const PostingLists& lists, const std::int32_t* columns, const float* weights, float scale,
                  std::int64_t n, std::uint32_t* sums) {
  if (lists.ids == nullptr) return add_integers_of(lists.narrow_ids, lists, columns, weights, scale, n, sums);
  add_integers_of(lists.ids, lists, columns, weights, scale, n, sums);
}

template <bool kSupport, class Id>
void add_reals_of(const Id* ids, const PostingLists& lists, const std::int32_t* columns, const float* weights,
                  std::int64_t n, double* sums, std::uint32_t* support) {
  walk_lists(ids, lists.values, lists.indptr, columns, n, [&](std::int64_t j, std::int64_t begin, std::int64_t end) {
    const double weight = weights[j];
    if (lists.values == nullptr) {
      for (std::int64_t e = begin; e < end; ++e) {
        sums[ids[e]] += weight;
        if (kSupport) ++support[ids[e]];
      }
      return;
    }
#pragma GCC unroll 4
    for (std::int64_t e = begin; e < end; ++e) {
      sums[ids[e]] += weight * static_cast<double>(lists.values[e]);
      if (kSupport) ++support[ids[e]];
    }
  });
}

void add_reals(const PostingLists& lists, const std::int32_t* columns, const float* weights, std::int64_t n,
               double* sums, std::uint32_t* support) {
  if (lists.ids != nullptr) {
    if (support != nullptr) return add_reals_of<true>(lists.ids, lists, columns, weights, n, sums, support);
    return add_reals_of<false>(lists.ids, lists, columns, weights, n, sums, support);
  }
  if (support != nullptr) return add_reals_of<true>(lists.narrow_ids, lists, columns, weights, n, sums, support);
  add_reals_of<false>(lists.narrow_ids, lists, columns, weights, n, sums, support);
}

template <class Id>
void add_corated_of(const Id* ids, const PostingLists& lists, const std::int32_t* columns, const float* weights,
                    std::int64_t n, CoratedSums* sums) {
  walk_lists(ids, lists.values, lists.indptr, columns, n, [&](std::int64_t j, std::int64_t begin, std::int64_t end) {
    const double u = weights[j];
    const double squared_u = u * u;
    for (std::int64_t e = begin; e < end; ++e) {
      const double v = lists.values[e];
      CoratedSums& s = sums[ids[e]];
      s.dot += u * v;
      s.squared_u += squared_u;
      s.squared_v += v * v;
      s.support += 1;
    }
  });
}

void add_corated(const PostingLists& lists, const std::int32_t* columns, const float* weights, std::int64_t n,
                 CoratedSums* sums) {
  if (lists.ids == nullptr) return add_corated_of(lists.narrow_ids, lists, columns, weights, n, sums);
  add_corated_of(lists.ids, lists, columns, weights, n, sums);
}

/// Tests blocks of positions without a branch per position: few blocks hold a hit once the bound is high.
template <class Passes>
inline __attribute__((always_inline)) std::int64_t screen(std::int64_t n, std::int32_t* hits, Passes passes) {
  constexpr std::int64_t kBlock = 32;
  std::int64_t found = 0, i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    int any = 0;
    for (std::int64_t j = i; j < i + kBlock; ++j) any |= passes(j);
    if (any == 0) continue;
    for (std::int64_t j = i; j < i + kBlock; ++j) {
      hits[found] = static_cast<std::int32_t>(j);
      found += passes(j);
    }
  }
  for (; i < n; ++i) {
    hits[found] = static_cast<std::int32_t>(i);
    found += passes(i);
  }
  return found;
}

std::int64_t screen_counts(const std::uint32_t* sums, const float* norms, std::int64_t n, const SumBound<float>& bound,
                           std::int32_t* hits) {
  const float slope = bound.slope, offset = bound.offset;
  const std::uint32_t least = bound.least;
  return screen(n, hits, [=](std::int64_t i) -> int {
    // Below 2^31, where a signed conversion is the fast one.
    const float sum = static_cast<float>(static_cast<std::int32_t>(sums[i]));
    return (sum >= norms[i] * slope + offset) & (sums[i] >= least);
  });
}

std::int64_t screen_reals(const double* sums, const std::uint32_t* support, const double* norms, std::int64_t n,
                          const SumBound<double>& bound, std::int32_t* hits) {
  const double slope = bound.slope, offset = bound.offset;
  if (support == nullptr && norms == nullptr) {
    return screen(n, hits, [=](std::int64_t i) -> int { return (sums[i] >= offset) & (sums[i] > 0); });
  }
  if (support == nullptr) {
    if (norms == nullptr) {
      return screen(n, hits, [=](std::int64_t i) -> int { return (sums[i] >= offset) & (sums[i] > 0); });
    }
    return screen(n, hits,
                  [=](std::int64_t i) -> int { return (sums[i] >= norms[i] * slope + offset) & (sums[i] > 0); });
  }
  const std::uint32_t least = bound.least;
  if (norms == nullptr) {
    return screen(n, hits, [=](std::int64_t i) -> int { return (sums[i] >= offset) & (support[i] >= least); });
  }
  return screen(n, hits,
                [=](std::int64_t i) -> int { return (sums[i] >= norms[i] * slope + offset) & (support[i] >= least); });
}
