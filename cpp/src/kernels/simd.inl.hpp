// The few vector operations that the kernels are written in, for the instruction set of the including unit.
// Internal linkage throughout: see all.inl.hpp.
#pragma once

#include <cstdint>

#if defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace recfuse::kernels::RECFUSE_ISA_NAME {
namespace {

#if defined(__AVX512F__)

using Floats = __m512;
constexpr int kFloats = 16;
inline Floats zero() { return _mm512_setzero_ps(); }
inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
inline Floats broadcast(float x) { return _mm512_set1_ps(x); }
inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
/// c - a * b
inline Floats multiply_subtract(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
inline Floats square_root(Floats x) { return _mm512_sqrt_ps(x); }
/// x where test > 0, else 0.
inline Floats where_positive(Floats test, Floats x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(test, _mm512_setzero_ps(), _CMP_GT_OQ), x);
}
inline Floats absolute(Floats x) { return _mm512_abs_ps(x); }
/// The bits of every element, 16 places up.
inline Floats shift_left_16(Floats x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16)); }
inline float sum_lanes(Floats x) { return _mm512_reduce_add_ps(x); }
/// Bit i: a[i] >= b[i]; false for NaN.
inline unsigned at_least(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }

#elif defined(__AVX2__)

using Floats = __m256;
constexpr int kFloats = 8;
inline Floats zero() { return _mm256_setzero_ps(); }
inline Floats load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm256_storeu_ps(p, x); }
inline Floats broadcast(float x) { return _mm256_set1_ps(x); }
inline Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats multiply_subtract(Floats a, Floats b, Floats c) { return _mm256_fnmadd_ps(a, b, c); }
inline Floats square_root(Floats x) { return _mm256_sqrt_ps(x); }
inline Floats where_positive(Floats test, Floats x) {
  return _mm256_and_ps(_mm256_cmp_ps(test, _mm256_setzero_ps(), _CMP_GT_OQ), x);
}
inline Floats absolute(Floats x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), x); }
inline Floats shift_left_16(Floats x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16)); }
inline float sum_lanes(Floats x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline unsigned at_least(Floats a, Floats b) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)));
}

#elif defined(__SSE2__)

using Floats = __m128;
constexpr int kFloats = 4;
inline Floats zero() { return _mm_setzero_ps(); }
inline Floats load(const float* p) { return _mm_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm_storeu_ps(p, x); }
inline Floats broadcast(float x) { return _mm_set1_ps(x); }
inline Floats multiply(Floats a, Floats b) { return _mm_mul_ps(a, b); }
inline Floats add(Floats a, Floats b) { return _mm_add_ps(a, b); }
inline Floats subtract(Floats a, Floats b) { return _mm_sub_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
inline Floats multiply_subtract(Floats a, Floats b, Floats c) { return _mm_sub_ps(c, _mm_mul_ps(a, b)); }
inline Floats square_root(Floats x) { return _mm_sqrt_ps(x); }
inline Floats where_positive(Floats test, Floats x) { return _mm_and_ps(_mm_cmpgt_ps(test, _mm_setzero_ps()), x); }
inline Floats absolute(Floats x) { return _mm_andnot_ps(_mm_set1_ps(-0.0F), x); }
inline Floats shift_left_16(Floats x) { return _mm_castsi128_ps(_mm_slli_epi32(_mm_castps_si128(x), 16)); }
inline float sum_lanes(Floats x) {
  const __m128 two = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline unsigned at_least(Floats a, Floats b) { return static_cast<unsigned>(_mm_movemask_ps(_mm_cmpge_ps(a, b))); }

#elif defined(__ARM_NEON)

using Floats = float32x4_t;
constexpr int kFloats = 4;
inline Floats zero() { return vdupq_n_f32(0); }
inline Floats load(const float* p) { return vld1q_f32(p); }
inline void store(float* p, Floats x) { vst1q_f32(p, x); }
inline Floats broadcast(float x) { return vdupq_n_f32(x); }
inline Floats multiply(Floats a, Floats b) { return vmulq_f32(a, b); }
inline Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
inline Floats subtract(Floats a, Floats b) { return vsubq_f32(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
inline Floats multiply_subtract(Floats a, Floats b, Floats c) { return vfmsq_f32(c, a, b); }
inline Floats square_root(Floats x) { return vsqrtq_f32(x); }
inline Floats where_positive(Floats test, Floats x) {
  return vreinterpretq_f32_u32(vandq_u32(vcgtq_f32(test, vdupq_n_f32(0)), vreinterpretq_u32_f32(x)));
}
inline Floats absolute(Floats x) { return vabsq_f32(x); }
inline Floats shift_left_16(Floats x) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), 16)); }
inline float sum_lanes(Floats x) { return vaddvq_f32(x); }
inline unsigned at_least(Floats a, Floats b) {
  const uint32x4_t bit = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(vcgeq_f32(a, b), bit));
}

#else

using Floats = float;
constexpr int kFloats = 1;
inline Floats zero() { return 0; }
inline Floats load(const float* p) { return *p; }
inline void store(float* p, Floats x) { *p = x; }
inline Floats broadcast(float x) { return x; }
inline Floats multiply(Floats a, Floats b) { return a * b; }
inline Floats add(Floats a, Floats b) { return a + b; }
inline Floats subtract(Floats a, Floats b) { return a - b; }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
inline Floats multiply_subtract(Floats a, Floats b, Floats c) { return c - a * b; }
inline Floats square_root(Floats x) { return __builtin_sqrtf(x); }
inline Floats where_positive(Floats test, Floats x) { return test > 0 ? x : 0; }
inline Floats absolute(Floats x) { return __builtin_fabsf(x); }
inline Floats shift_left_16(Floats x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  bits <<= 16;
  __builtin_memcpy(&x, &bits, sizeof bits);
  return x;
}
inline float sum_lanes(Floats x) { return x; }
inline unsigned at_least(Floats a, Floats b) { return a >= b; }

#endif

/// The sums of the lanes of four vectors.
inline void sum_four(const Floats* x, float* sums) {
#if defined(__AVX512F__)
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
  const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512 four = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
  const __m256 two = _mm256_add_ps(_mm512_castps512_ps256(four), _mm512_extractf32x8_ps(four, 1));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
#elif defined(__AVX2__)
  const __m256 two = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
#else
  for (int i = 0; i < 4; ++i) sums[i] = sum_lanes(x[i]);
#endif
}

inline void prefetch(const void* p) { __builtin_prefetch(p); }
inline void prefetch_to_second_cache(const void* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace
}  // namespace recfuse::kernels::RECFUSE_ISA_NAME
