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
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
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
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
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
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
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
inline Floats multiply_add(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
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
inline Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
inline unsigned at_least(Floats a, Floats b) { return a >= b; }

#endif

}  // namespace
}  // namespace recfuse::kernels::RECFUSE_ISA_NAME
