// float16 as bits: what the screen multiplies. One rounding, to nearest even, on every machine.
#pragma once

#include <cstdint>
#include <cstring>

#include "portable.cuh"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace recfuse::cuda {

using half_bits = std::uint16_t;

RECFUSE_DEVICE float float_of(half_bits h) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(h));
#else
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000U) << 16;
  const std::uint32_t exponent = (h >> 10) & 31U, mantissa = h & 0x3FFU;
  if (exponent == 0) {  // subnormal: a multiple of 2^-24, exact in float32
    const float value = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -value : value;
  }
  const std::uint32_t bits =
      sign | (exponent == 31 ? 0x7F800000U | mantissa << 13 : (exponent + 112) << 23 | mantissa << 13);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

/// Values beyond 65504 become infinite: whoever rounds has scaled them first.
RECFUSE_DEVICE half_bits half_of(float value) {
#if defined(__CUDA_ARCH__)
  return __half_as_ushort(__float2half_rn(value));
#else
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<half_bits>(bits >> 16 & 0x8000U);
  bits &= 0x7FFFFFFFU;
  if (bits > 0x7F800000U) return static_cast<half_bits>(sign | 0x7E00U);   // NaN
  if (bits >= 0x477FF000U) return static_cast<half_bits>(sign | 0x7C00U);  // rounds beyond 65504
  if (bits < 0x38800000U) {                                                // below 2^-14: a multiple of 2^-24
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    // Next to 0.5 the last bit of a float32 is worth 2^-24: the addition rounds, to nearest even.
    const float shifted = magnitude + 0.5F;
    std::uint32_t rounded;
    std::memcpy(&rounded, &shifted, sizeof rounded);
    return static_cast<half_bits>(sign | (rounded - 0x3F000000U));
  }
  const std::uint32_t odd = bits >> 13 & 1U;
  return static_cast<half_bits>(sign | ((bits + 0xFFFU + odd - 0x38000000U) >> 13));
#endif
}

}  // namespace recfuse::cuda
