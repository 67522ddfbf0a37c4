// What a score is, and how scores rank. Every fast path only screens; what is returned comes from here.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define RECFUSE_HD __host__ __device__
#else
#define RECFUSE_HD
#endif

namespace recfuse {

/// Inner product in float64: 8 interleaved partial sums in index order, added pairwise.
/// A product of two float32 is exact in float64, so fused and separate multiply-add give the same bits.
RECFUSE_HD static inline double canonical_dot(const float* a, const float* b, std::int64_t n) {
  double sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  // Indices of `sum` are constants: on a device, others would put it into memory.
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  }
  for (int j = 0; j < 8; ++j) {
    if (i + j < n) sum[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  }
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/// |a - b|^2 in float64, in the order of canonical_dot. Squares are rounded before they are added: nothing may fuse.
static inline double squared_distance(const float* a, const float* b, std::int64_t n) {
  double sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (std::int64_t i = 0; i < n; ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    const double square = difference * difference;
    sum[i & 7] += square;
  }
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/// 1 / |x| from |x|^2; 0 for a zero vector, so that its cosine with anything is 0.
RECFUSE_HD static inline double inverse_norm(double squared_norm) {
  return squared_norm == 0.0 ? 0.0 : 1.0 / std::sqrt(squared_norm);
}

/// <u, v> / (|u| |v| + shrinkage), rounded once; 0 where a norm is 0.
RECFUSE_HD static inline float cosine(double dot, double squared_norm_u, double squared_norm_v, double shrinkage) {
  const double norms = std::sqrt(squared_norm_u * squared_norm_v) + shrinkage;
  return norms == 0 ? 0.0F : static_cast<float>(dot / norms);
}

/// Unsigned order of the ranking: larger is better, -0 equals +0, NaN is 0 and never ranks.
RECFUSE_HD static inline std::uint32_t score_bits(float score) {
  if (score != score) return 0;
  if (score == 0.0F) score = 0.0F;
  std::uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

/// One key per (score, id): score descending, then id ascending, is key descending. 0 for NaN.
RECFUSE_HD static inline std::uint64_t ranking_key(float score, std::int32_t id) {
  const std::uint64_t bits = score_bits(score);
  return bits == 0 ? 0 : bits << 32 | (0xFFFFFFFFU - static_cast<std::uint32_t>(id));
}

RECFUSE_HD static inline std::int32_t key_id(std::uint64_t key) {
  return static_cast<std::int32_t>(0xFFFFFFFFU - static_cast<std::uint32_t>(key));
}

RECFUSE_HD static inline float key_score(std::uint64_t key) {
  std::uint32_t bits = static_cast<std::uint32_t>(key >> 32);
  bits = (bits & 0x80000000U) != 0 ? bits & 0x7FFFFFFFU : ~bits;
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

}  // namespace recfuse
