// The screen of rounded numbers: several neighbouring dimensions to the instruction, sums exact.

/// A bit for every item of a panel that query r must not get.
inline unsigned refused_by(const RoundedPanel& items, int r) {
  return items.refused == nullptr ? 0 : items.refused[r * items.refused_step];
}

#if defined(__AVX512VNNI__)
#include "rounded_screen.avx512.inl.hpp"
#elif defined(__AVX2__) && !defined(__AVX512F__)  // where float32 is as fast as this
#include "rounded_screen.avx2.inl.hpp"
#else
constexpr int kItemLimit = 127;
constexpr int kChunkSteps = 0;
constexpr decltype(KernelTable::largest_lane) kLargestLane = nullptr;
constexpr decltype(KernelTable::int8_chains) kInt8Chains = nullptr;
constexpr decltype(KernelTable::screen_int8) kScreenInt8 = nullptr;
constexpr decltype(KernelTable::screen_int16) kScreenInt16 = nullptr;
constexpr decltype(KernelTable::dot_rows_int8) kDotRowsInt8 = nullptr;
#endif
