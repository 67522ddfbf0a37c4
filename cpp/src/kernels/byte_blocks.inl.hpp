// Sums of weighted blocks of bytes: what a busy column adds to kBlockIds rows at a time.

#if defined(__AVX512BW__) || defined(__AVX2__)

#if defined(__AVX512BW__)
using ByteVector = __m512i;
inline ByteVector load_bytes(const void* p) { return _mm512_load_si512(p); }
inline void store_bytes(void* p, ByteVector x) { _mm512_store_si512(p, x); }
inline ByteVector no_bytes() { return _mm512_setzero_si512(); }
inline ByteVector four_weights(std::uint32_t w) { return _mm512_set1_epi32(static_cast<int>(w)); }
inline ByteVector low_bytes(ByteVector a, ByteVector b) { return _mm512_unpacklo_epi8(a, b); }
inline ByteVector high_bytes(ByteVector a, ByteVector b) { return _mm512_unpackhi_epi8(a, b); }
inline ByteVector low_pairs(ByteVector a, ByteVector b) { return _mm512_unpacklo_epi16(a, b); }
inline ByteVector high_pairs(ByteVector a, ByteVector b) { return _mm512_unpackhi_epi16(a, b); }
inline ByteVector add_four(ByteVector sum, ByteVector bytes, ByteVector weights) {
#if defined(__AVX512VNNI__)
  return _mm512_dpbusd_epi32(sum, bytes, weights);
#else
  // Two products of at most 127 * 127 stay below 2^15.
  const ByteVector pairs = _mm512_maddubs_epi16(bytes, weights);
  return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
}
constexpr int kBlockVectors = 4;  // whose sums fill 16 registers
#else
using ByteVector = __m256i;
inline ByteVector load_bytes(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }
inline void store_bytes(void* p, ByteVector x) { _mm256_store_si256(static_cast<__m256i*>(p), x); }
inline ByteVector no_bytes() { return _mm256_setzero_si256(); }
inline ByteVector four_weights(std::uint32_t w) { return _mm256_set1_epi32(static_cast<int>(w)); }
inline ByteVector low_bytes(ByteVector a, ByteVector b) { return _mm256_unpacklo_epi8(a, b); }
inline ByteVector high_bytes(ByteVector a, ByteVector b) { return _mm256_unpackhi_epi8(a, b); }
inline ByteVector low_pairs(ByteVector a, ByteVector b) { return _mm256_unpacklo_epi16(a, b); }
inline ByteVector high_pairs(ByteVector a, ByteVector b) { return _mm256_unpackhi_epi16(a, b); }
inline ByteVector add_four(ByteVector sum, ByteVector bytes, ByteVector weights) {
  const ByteVector pairs = _mm256_maddubs_epi16(bytes, weights);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
constexpr int kBlockVectors = 2;  // whose sums fill 8 registers
#endif

constexpr int kByteVector = static_cast<int>(sizeof(ByteVector));
constexpr std::int64_t kBlocksAhead = 8;

/// Unpacking four columns brings the four bytes of a row together, and rows in an order that this one makes natural.
int block_slot(int id) {
  constexpr int kLanes = kByteVector / 16;
  const int within = id % kByteVector;
  const int sum = within / (4 * kLanes), lane = within / 4 % kLanes;
  return id - within + 16 * lane + 4 * sum + within % 4;
}

void add_blocks(const std::uint8_t* blocks, const std::uint32_t* which, const std::uint8_t* weights, std::int64_t n,
                std::uint32_t* out) {
  for (int part = 0; part < kBlockIds; part += kBlockVectors * kByteVector) {
    ByteVector sums[4 * kBlockVectors];
#pragma GCC unroll 16
    for (auto& sum : sums) sum = no_bytes();
    for (std::int64_t j = 0; j < n; j += 4) {
      const std::uint8_t* rows[4];
      std::uint32_t four = 0;
      for (std::int64_t q = 0; q < 4; ++q) {
        // Behind the last one any block will do, at weight 0.
        const std::int64_t at = j + q < n ? j + q : j;
        rows[q] = blocks + static_cast<std::size_t>(which[at]) * kBlockIds + part;
        if (j + q < n) four |= static_cast<std::uint32_t>(weights[at]) << (8 * q);
        if (j + q + kBlocksAhead < n) {
          const std::uint8_t* const next = blocks + static_cast<std::size_t>(which[j + q + kBlocksAhead]) * kBlockIds;
          for (int line = 0; line < kBlockVectors * kByteVector; line += 64) __builtin_prefetch(next + part + line);
        }
      }
      const ByteVector w = four_weights(four);
#pragma GCC unroll 4
      for (int v = 0; v < kBlockVectors; ++v) {
        const ByteVector a = load_bytes(rows[0] + v * kByteVector), b = load_bytes(rows[1] + v * kByteVector);
        const ByteVector c = load_bytes(rows[2] + v * kByteVector), d = load_bytes(rows[3] + v * kByteVector);
        const ByteVector low_ab = low_bytes(a, b), low_cd = low_bytes(c, d);
        const ByteVector high_ab = high_bytes(a, b), high_cd = high_bytes(c, d);
        sums[4 * v] = add_four(sums[4 * v], low_pairs(low_ab, low_cd), w);
        sums[4 * v + 1] = add_four(sums[4 * v + 1], high_pairs(low_ab, low_cd), w);
        sums[4 * v + 2] = add_four(sums[4 * v + 2], low_pairs(high_ab, high_cd), w);
        sums[4 * v + 3] = add_four(sums[4 * v + 3], high_pairs(high_ab, high_cd), w);
      }
      // Without this GCC 12 keeps the sums in memory while it adds.
#pragma GCC unroll 16
      for (auto& sum : sums) asm("" : "+v"(sum));
    }
#pragma GCC unroll 16
    for (int s = 0; s < 4 * kBlockVectors; ++s) store_bytes(out + part + s * (kByteVector / 4), sums[s]);
  }
}

// In scattered additions that cost as much as adding one block (benchmarks/micro/scatter.cpp).
#if defined(__AVX512BW__)
constexpr int kBlockCost = 10;
#else
constexpr int kBlockCost = 20;
#endif

#else

int block_slot(int id) { return id; }

void add_blocks(const std::uint8_t* blocks, const std::uint32_t* which, const std::uint8_t* weights, std::int64_t n,
                std::uint32_t* out) {
  for (int i = 0; i < kBlockIds; ++i) out[i] = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    const std::uint8_t* const block = blocks + static_cast<std::size_t>(which[j]) * kBlockIds;
    const std::uint16_t weight = weights[j];
    for (int i = 0; i < kBlockIds; ++i) out[i] += static_cast<std::uint16_t>(weight * block[i]);
  }
}

constexpr int kBlockCost = 80;

#endif
