// Which number format should the screen of the dense search use, in which register block, and what does testing the
// thresholds cost? One core, operands in the first or second cache.
//
//   c++ -std=c++20 -O3 -march=native benchmarks/micro/screen.cpp -o build/screen && build/screen
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

namespace {

// A format multiplies kPack neighbouring dimensions in one instruction and adds them to 16 sums.
struct Float32 {
  static constexpr const char* kName = "fp32";
  static constexpr int kPack = 1;
  using Sum = __m512;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Sum step(Sum sum, const std::int32_t* query, __m512i items) {
    float q;
    std::memcpy(&q, query, sizeof q);
    return _mm512_fmadd_ps(_mm512_set1_ps(q), _mm512_castsi512_ps(items), sum);
  }
  static __mmask16 reach(Sum sum, float threshold) {
    return _mm512_cmp_ps_mask(sum, _mm512_set1_ps(threshold), _CMP_GE_OQ);
  }
};

struct Int16 {
  static constexpr const char* kName = "int16";
  static constexpr int kPack = 2;
  using Sum = __m512i;
  static Sum zero() { return _mm512_setzero_si512(); }
  static Sum step(Sum sum, const std::int32_t* query, __m512i items) {
    return _mm512_dpwssd_epi32(sum, items, _mm512_set1_epi32(*query));
  }
  static __mmask16 reach(Sum sum, float threshold) {
    return _mm512_cmpge_epi32_mask(sum, _mm512_set1_epi32(static_cast<int>(threshold)));
  }
};

struct Int8 : Int16 {
  static constexpr const char* kName = "int8";
  static constexpr int kPack = 4;
  static Sum step(Sum sum, const std::int32_t* query, __m512i items) {
    return _mm512_dpbusd_epi32(sum, items, _mm512_set1_epi32(*query));
  }
};

#ifdef __AVX512BF16__
struct BFloat16 : Float32 {
  static constexpr const char* kName = "bf16";
  static constexpr int kPack = 2;
  static Sum step(Sum sum, const std::int32_t* query, __m512i items) {
    return _mm512_dpbf16_ps(sum, (__m512bh)items, (__m512bh)_mm512_set1_epi32(*query));
  }
};
#endif

volatile std::int64_t sink;

/// MR queries times 16 * NV items; with kTest, how many scores reach the threshold of their query.
template <class Format, int MR, int NV, bool kTest>
__attribute__((noinline)) std::int64_t block(const std::int32_t* queries, const std::int32_t* items, int steps,
                                             const float* thresholds) {
  typename Format::Sum sums[MR][NV];
#pragma GCC unroll 32
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sums[r][v] = Format::zero();
  }
  for (int s = 0; s < steps; ++s, queries += MR, items += 16 * NV) {
    __m512i x[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) x[v] = _mm512_loadu_si512(items + 16 * v);
#pragma GCC unroll 32
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sums[r][v] = Format::step(sums[r][v], queries + r, x[v]);
    }
  }
  // All sums in registers here: without this GCC 12 keeps the integer ones in memory while it adds.
#pragma GCC unroll 32
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) asm volatile("" : "+v"(sums[r][v]));
  }
  std::int64_t hits = 0;
  if constexpr (kTest) {
#pragma GCC unroll 32
    for (int r = 0; r < MR; ++r) {
      unsigned any = 0;
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) any |= static_cast<unsigned>(Format::reach(sums[r][v], thresholds[r])) << (16 * (v & 1));
      if (__builtin_expect(any != 0, 0)) hits += __builtin_popcount(any);
    }
  }
  return hits;
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class Work>
double best_of(int rounds, Work work) {
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const double start = seconds();
    work();
    best = std::min(best, seconds() - start);
  }
  return best;
}

/// 28 independent sums on registers only.
template <class Format>
double peak() {
  constexpr int kSums = 24, kSteps = 2'000'000;
  const std::int32_t query = 0x01010101;
  __m512i items = _mm512_set1_epi32(0x01010101);
  asm volatile("" : "+v"(items));
  const __m512i broadcast = _mm512_set1_epi32(query);
  std::int32_t lanes[16];
  _mm512_storeu_si512(lanes, broadcast);
  const double t = best_of(5, [&] {
    typename Format::Sum sums[kSums];
#pragma GCC unroll 32
    for (auto& sum : sums) sum = Format::zero();
    for (int s = 0; s < kSteps; ++s) {
#pragma GCC unroll 32
      for (auto& sum : sums) {
        sum = Format::step(sum, lanes, items);
      }
#pragma GCC unroll 32
      for (auto& sum : sums) asm volatile("" : "+v"(sum));
    }
  });
  return 2.0 * kSums * kSteps * 16 * Format::kPack / t * 1e-9;
}

template <class Format, int MR, int NV, bool kTest>
double rate(int dim) {
  const int steps = dim / Format::kPack;
  constexpr int kQueryPanels = 8, kItemPanels = 8;  // the queries of a run and a piece of a tile
  std::mt19937 rng(0);
  std::vector<std::int32_t> queries(static_cast<std::size_t>(kQueryPanels * steps * MR));
  std::vector<std::int32_t> items(static_cast<std::size_t>(kItemPanels * steps * 16 * NV));
  for (auto& x : queries) x = static_cast<std::int32_t>(rng() & 0x07070707);
  for (auto& x : items) x = static_cast<std::int32_t>(rng() & 0x07070707);
  std::vector<float> thresholds(MR, 2e9F);
  const int repeats = std::max(1, 400'000 / (steps * kQueryPanels * kItemPanels));
  const double t = best_of(7, [&] {
    std::int64_t hits = 0;
    for (int i = 0; i < repeats; ++i) {
      for (int p = 0; p < kItemPanels; ++p) {
        for (int q = 0; q < kQueryPanels; ++q) {
          hits += block<Format, MR, NV, kTest>(&queries[static_cast<std::size_t>(q * steps * MR)],
                                               &items[static_cast<std::size_t>(p * steps * 16 * NV)], steps,
                                               thresholds.data());
        }
      }
    }
    sink = hits;
  });
  return 2.0 * repeats * kQueryPanels * kItemPanels * MR * 16 * NV * dim / t * 1e-9;
}

template <class Format, int MR, int NV>
void row(double ceiling) {
  std::printf("  %-5s %2dx%-3d", Format::kName, MR, 16 * NV);
  for (const int dim : {64, 128, 256, 512}) {
    const double bare = rate<Format, MR, NV, false>(dim), tested = rate<Format, MR, NV, true>(dim);
    std::printf("  %5.0f %3.0f %% (test %4.1f %%)", tested, 100 * tested / ceiling, 100 * (bare / tested - 1));
  }
  std::printf("\n");
}

template <class Format>
double format_peak() {
  const double g = peak<Format>();
  std::printf("  %-5s %6.0f GOP/s\n", Format::kName, g);
  return g;
}

}  // namespace

int main() {
  std::printf("registers only, one core\n");
  const double f = format_peak<Float32>(), h = format_peak<Int16>(), b = format_peak<Int8>();
#ifdef __AVX512BF16__
  format_peak<BFloat16>();
#endif
  std::printf("blocks, dimensions 64, 128, 256, 512: GOP/s, share of the peak, and what the test of the thresholds adds\n");
  row<Float32, 14, 2>(f);
  row<Float32, 12, 2>(f);
  row<Float32, 6, 4>(f);
  row<Int16, 14, 2>(h);
  row<Int8, 14, 2>(b);
  row<Int8, 12, 2>(b);
  row<Int8, 9, 3>(b);
  row<Int8, 6, 4>(b);
}
