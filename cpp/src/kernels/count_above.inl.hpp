// A panel of scores against the marks of a query, each a score that is known and what it may be confused with.

#if defined(__AVX512F__)
unsigned count_above(const float* scores, int n, const float* above, const float* below, std::int64_t n_marks,
                     std::int32_t* counts) {
  // A score against 16 marks at once: their counts stay in a register, and no mask has to leave for one to be counted.
  const __m512 infinity = _mm512_set1_ps(__builtin_inff());
  const __m512i one = _mm512_set1_epi32(1);
  unsigned open = 0;
  for (std::int64_t i = 0; i < n_marks; i += 16) {
    const auto marks = static_cast<__mmask16>(n_marks - i >= 16 ? 0xFFFF : (1 << (n_marks - i)) - 1);
    const __m512 sure = _mm512_mask_loadu_ps(infinity, marks, above + i);
    const __m512 possible = _mm512_mask_loadu_ps(infinity, marks, below + i);
    __m512i count = _mm512_maskz_loadu_epi32(marks, counts + i);
    for (int j = 0; j < n; ++j) {
      const __m512 score = _mm512_set1_ps(scores[j]);
      const __mmask16 reach = _mm512_cmp_ps_mask(score, sure, _CMP_GE_OQ);
      count = _mm512_mask_add_epi32(count, reach, count, one);
      const unsigned may = _mm512_mask_cmp_ps_mask(static_cast<__mmask16>(~reach), score, possible, _CMP_GE_OQ);
      open |= (may != 0 ? 1U : 0U) << j;
    }
    _mm512_mask_storeu_epi32(counts + i, marks, count);
  }
  return open;
}
#else
unsigned count_above(const float* scores, int n, const float* above, const float* below, std::int64_t n_marks,
                     std::int32_t* counts) {
  static_assert(kPanelVectors == 2);
  const Floats low = load(scores), high = load(scores + kFloats);
  const unsigned lanes = ~0U >> (32 - n);
  unsigned open = 0;
  for (std::int64_t i = 0; i < n_marks; ++i) {
    const Floats sure = broadcast(above[i]), possible = broadcast(below[i]);
    const unsigned reach = (at_least(low, sure) | at_least(high, sure) << kFloats) & lanes;
    counts[i] += __builtin_popcount(reach);
    open |= (at_least(low, possible) | at_least(high, possible) << kFloats) & ~reach;
  }
  return open & lanes;
}
#endif
