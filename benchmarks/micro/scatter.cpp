// What does one update of a sparse product cost, by how its entries lie and how large the sums are; and a block of 256
// bytes, which replaces the entries of a busy column? One core, lists of random ids out of a table larger than the
// caches.
//
//   c++ -std=c++20 -O3 -march=native benchmarks/micro/scatter.cpp -o build/scatter && build/scatter
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

namespace {

template <class Run>
double nanoseconds(std::int64_t updates, const Run& run) {
  double best = 1e30;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    run();
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - start;
    best = std::min(best, time.count() / static_cast<double>(updates));
  }
  return best;
}

/// Lists of `length` ids below n_sums, one after the other, visited in random order.
void scatter(std::int64_t n_sums, std::int64_t length) {
  constexpr std::int64_t kEntries = 1 << 24;
  std::mt19937 random(1);
  std::vector<std::uint32_t> words(kEntries);
  for (auto& word : words) word = static_cast<std::uint32_t>(random() % n_sums) | (1 + random() % 5) << 24;
  std::vector<std::int64_t> begins;
  for (std::int64_t begin = 0; begin + length <= kEntries; begin += length) begins.push_back(begin);
  std::shuffle(begins.begin(), begins.end(), random);
  std::vector<std::uint32_t> counts(static_cast<std::size_t>(n_sums));
  std::vector<double> reals(static_cast<std::size_t>(n_sums));
  const auto each = [&](const auto& add) {
    return nanoseconds(static_cast<std::int64_t>(begins.size()) * length, [&] {
      for (std::size_t i = 0; i < begins.size(); ++i) {
        if (i + 6 < begins.size()) {
          for (std::int64_t e = 0; e < std::min<std::int64_t>(length, 128); e += 16) {
            __builtin_prefetch(&words[static_cast<std::size_t>(begins[i + 6] + e)]);
          }
        }
        for (std::int64_t e = begins[i]; e < begins[i] + length; ++e) add(words[static_cast<std::size_t>(e)]);
      }
    });
  };
  const double ones = each([&](std::uint32_t word) { ++counts[word & 0xFFFFFF]; });
  const double weighted = each([&](std::uint32_t word) { counts[word & 0xFFFFFF] += 3 * (word >> 24); });
  const double real = each([&](std::uint32_t word) { reals[word & 0xFFFFFF] += 0.3 * (word >> 24); });
  std::printf("%8ld sums, lists of %5ld: ones %.2f ns, whole numbers %.2f, float64 %.2f\n", static_cast<long>(n_sums),
              static_cast<long>(length), ones, weighted, real);
}

/// Blocks of 256 bytes at random out of `n_blocks`, each times a weight, by what the compiler makes of it.
void blocks(std::int64_t n_blocks) {
  constexpr std::int64_t kVisits = 1 << 18;
  std::mt19937 random(2);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(n_blocks) * 256, 3);
  std::vector<std::uint32_t> which(kVisits);
  for (auto& block : which) block = static_cast<std::uint32_t>(random() % n_blocks);
  std::uint32_t sums[256] = {};
  const double time = nanoseconds(kVisits, [&] {
    for (const std::uint32_t block : which) {
      const std::uint8_t* const begin = &bytes[static_cast<std::size_t>(block) * 256];
      for (int i = 0; i < 256; ++i) sums[i] += static_cast<std::uint16_t>(3 * begin[i]);
    }
  });
  std::printf("%8ld blocks: %.1f ns a block (%u)\n", static_cast<long>(n_blocks), time, sums[0] % 10);
}

}  // namespace

int main() {
  for (const std::int64_t n_sums : {4096, 27'000, 292'000}) {
    for (const std::int64_t length : {40, 1000}) scatter(n_sums, length);
  }
  for (const std::int64_t n_blocks : {64, 4096, 262'144}) blocks(n_blocks);
}
