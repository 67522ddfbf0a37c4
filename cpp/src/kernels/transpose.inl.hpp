// A square block of floats, transposed in registers: block[i] lane j becomes block[j] lane i.

#if defined(__AVX512F__)

inline void transpose(Floats (&b)[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(b[i], b[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(b[i], b[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int half = 0; half < 2; ++half) {
      const __m512d low = _mm512_castps_pd(t[i + half]), high = _mm512_castps_pd(t[i + 2 + half]);
      b[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      b[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  // b[4 g + c] now has, in each quarter, column (4 quarter + c) of rows 4 g .. 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88);
    t[4 + c] = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
    t[8 + c] = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    t[12 + c] = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
  }
  for (int c = 0; c < 4; ++c) {
    b[c] = _mm512_shuffle_f32x4(t[c], t[8 + c], 0x88);
    b[4 + c] = _mm512_shuffle_f32x4(t[4 + c], t[12 + c], 0x88);
    b[8 + c] = _mm512_shuffle_f32x4(t[c], t[8 + c], 0xdd);
    b[12 + c] = _mm512_shuffle_f32x4(t[4 + c], t[12 + c], 0xdd);
  }
}

#elif defined(__AVX2__)

inline void transpose(Floats (&b)[8]) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(b[i], b[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(b[i], b[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int half = 0; half < 2; ++half) {
      const __m256d low = _mm256_castps_pd(t[i + half]), high = _mm256_castps_pd(t[i + 2 + half]);
      b[i + 2 * half] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
      b[i + 2 * half + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
  }
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
    t[4 + c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
  }
  for (int i = 0; i < 8; ++i) b[i] = t[i];
}

#elif defined(__SSE2__)

inline void transpose(Floats (&b)[4]) { _MM_TRANSPOSE4_PS(b[0], b[1], b[2], b[3]); }

#elif defined(__ARM_NEON)

inline void transpose(Floats (&b)[4]) {
  const float32x4x2_t low = vzipq_f32(b[0], b[2]), high = vzipq_f32(b[1], b[3]);
  const float32x4x2_t first = vzipq_f32(low.val[0], high.val[0]), second = vzipq_f32(low.val[1], high.val[1]);
  b[0] = first.val[0];
  b[1] = first.val[1];
  b[2] = second.val[0];
  b[3] = second.val[1];
}

#else

inline void transpose(Floats (&)[1]) {}

#endif
