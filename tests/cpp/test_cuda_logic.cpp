// The kernels of the GPU, run by the emulator: what they compute. Whether a device runs them as fast as it should, and
// without races, only a device can tell (tools/gpu_check.sh).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "check.hpp"
#include "cuda_search.hpp"
#include "diagnosis.hpp"

using namespace recfuse::testing;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// A kernel that runs a phase of a test.
template <class F>
struct Phase {
  static constexpr int kThreads = 64;
  F body;
  void operator()(cuda::HostBlock& block) const { body(block); }
};
template <class F>
Phase(F) -> Phase<F>;

}  // namespace

TEST(why_cuda_is_off_is_said_with_what_to_do) {
  const cuda::DeviceFacts works{.driver = 13000, .runtime = 13000, .count = 1, .name = "NVIDIA X", .major = 9};
  const auto says = [](const cuda::DeviceFacts& facts, const std::string& words) {
    return cuda::unusable_reason(facts).find(words) != std::string::npos;
  };
  const auto changed = [&](auto&& change) {
    cuda::DeviceFacts facts = works;
    change(facts);
    return facts;
  };
  CHECK(cuda::unusable_reason(works).empty());
  CHECK(says(changed([](auto& f) { f.driver = 0; }), "no NVIDIA driver on this machine (install one for CUDA 13.0"));
  CHECK(says(changed([](auto& f) { f.driver = 12080, f.status = 35; }),
             "is made for CUDA 12.8, this build for 13.0: update the driver"));
  CHECK(says(changed([](auto& f) { f.status = 100; }), "no CUDA device: nvidia-smi should list one"));
  CHECK(says(changed([](auto& f) { f.count = 0; }), "no CUDA device: nvidia-smi should list one"));
  CHECK(says(changed([](auto& f) { f.count = 0, f.visible = ""; }), "CUDA_VISIBLE_DEVICES='' hides all"));
  CHECK(says(changed([](auto& f) { f.status = 802, f.status_text = "system not yet initialized"; }),
             "CUDA does not start: system not yet initialized; a service of the machine is not running"));
  CHECK(cuda::unusable_reason(changed([](auto& f) { f.status = 999, f.status_text = "unknown"; })) ==
        "CUDA does not start: unknown");
  CHECK(says(changed([](auto& f) { f.major = 7, f.minor = 5; }), "X has compute capability 7.5; at least 8.0 is"));
  CHECK(says(changed([](auto& f) { f.major = 8, f.built_for = "90a-real"; }),
             "8.0, and this build has code for 90a-real alone: build it with -DRECFUSE_CUDA_ARCHITECTURES=80"));
  CHECK(says(changed([](auto& f) { f.has_pools = false; }), "X has no memory pools"));
}

TEST(code_runs_on_the_devices_that_it_is_made_for) {
  const auto runs_on = [](const char* architectures, int capability) {
    return cuda::has_code_for(architectures, capability / 10, capability % 10);
  };
  CHECK(runs_on("", 90) && runs_on("native", 90) && runs_on("all-major", 80));
  CHECK(runs_on("90a-real", 90) && !runs_on("90a-real", 80) && !runs_on("90a-real", 100));
  CHECK(!runs_on("90a", 120) && runs_on("90a", 90));
  CHECK(runs_on("80-real", 80) && runs_on("80-real", 86) && !runs_on("80-real", 90) && !runs_on("86-real", 80));
  CHECK(runs_on("80-virtual", 80) && runs_on("80-virtual", 120) && !runs_on("86-virtual", 80));
  CHECK(runs_on("80", 120) && runs_on("90a-real 80-virtual", 89) && !runs_on("90a-real 100-real", 89));
}

TEST(a_failure_that_is_nobodys_in_particular_is_not_called_ours) {
  for (const int sticky : {700, 702, 709, 710, 714, 715, 716, 717, 718, 719}) {
    CHECK(cuda::advice(sticky).find("of recfuse or of another library") != std::string::npos);
  }
  CHECK(cuda::advice(3).find("fork") != std::string::npos);
  CHECK(cuda::advice(1).empty() && cuda::advice(2).empty());
}

TEST(every_float16_survives_the_way_to_float32_and_back) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto h = static_cast<cuda::half_bits>(bits);
    const bool nan = (bits & 0x7C00U) == 0x7C00U && (bits & 0x3FFU) != 0;
    const float value = cuda::float_of(h);
    CHECK(nan ? value != value : cuda::half_of(value) == h);
  }
}

TEST(float16_is_the_nearest_and_the_even_one_of_two) {
  for (std::uint32_t bits = 0; bits < 0x7BFF; ++bits) {
    const auto low = static_cast<cuda::half_bits>(bits), high = static_cast<cuda::half_bits>(bits + 1);
    const float a = cuda::float_of(low), b = cuda::float_of(high), middle = (a + b) / 2;  // exact
    CHECK(cuda::half_of(middle) == (bits % 2 == 0 ? low : high));
    CHECK(cuda::half_of(std::nextafter(middle, 0.0F)) == low);
    CHECK(cuda::half_of(std::nextafter(middle, kInfinity)) == high);
    CHECK(cuda::half_of(-std::nextafter(middle, kInfinity)) == (high | 0x8000U));
  }
  CHECK(cuda::float_of(cuda::half_of(65519.0F)) == 65504.0F);
  CHECK(cuda::float_of(cuda::half_of(65520.0F)) == kInfinity);
}

TEST(an_image_has_a_place_for_every_element_and_eight_rows_in_eight_banks) {
  constexpr int kRows = 128, kSlabs = 3;
  std::set<std::int64_t> places;
  for (int tile = 0; tile < 2; ++tile) {
    for (int row = 0; row < kRows; ++row) {
      for (int column = 0; column < kSlabs * cuda::kSlab; ++column) {
        places.insert(cuda::image_index(tile, kRows, kSlabs, row, column));
      }
    }
  }
  CHECK(places.size() == 2UL * kRows * kSlabs * cuda::kSlab);
  CHECK(*places.begin() == 0 && *places.rbegin() == 2L * kRows * kSlabs * cuda::kSlab - 1);
  for (int first = 0; first < kRows; first += 8) {
    for (int chunk = 0; chunk < 8; ++chunk) {
      std::set<int> banks;
      for (int row = first; row < first + 8; ++row) banks.insert(cuda::chunk_offset(row, chunk) / 16 % 8);
      CHECK(banks.size() == 8);
    }
  }
}

TEST(keys_are_sorted_from_the_largest_down) {
  Emulator device;
  std::mt19937_64 generator(7);
  for (const std::int64_t size : {1, 2, 8, 64, 1024, 4096}) {
    std::vector<std::uint64_t> keys(static_cast<std::size_t>(size));
    for (auto& key : keys) key = generator() % 97 == 0 ? 0 : generator();
    std::vector<std::uint64_t> expected = keys;
    std::sort(expected.begin(), expected.end(), std::greater<>());
    device.launch(Phase{[&](auto& block) { cuda::sort_keys(block, keys.data(), size); }}, 1, 1, 0);
    CHECK(keys == expected);
  }
}

TEST(a_threshold_is_the_kth_largest_lower_end_and_only_what_reaches_it_stays) {
  Emulator device;
  std::mt19937 generator(3);
  constexpr int kCapacity = 512;
  for (const int n : {0, 1, 9, 10, 11, 300, kCapacity, kCapacity + 1}) {
    for (const int k : {1, 10, 300}) {
      for (const int distinct : {1, 5, 1 << 20}) {
        std::vector<float> lower(kCapacity), upper(kCapacity);
        std::vector<std::int32_t> ids(kCapacity), counts{n};
        std::vector<float> thresholds{-kInfinity};
        const auto filled = static_cast<std::size_t>(std::min(n, kCapacity));
        for (std::size_t i = 0; i < filled; ++i) {
          lower[i] = static_cast<float>(static_cast<int>(generator() % static_cast<unsigned>(distinct)) - distinct / 2);
          upper[i] = lower[i] + static_cast<float>(generator() % 4);
          ids[i] = static_cast<std::int32_t>(i);
        }
        float expected = -kInfinity;
        std::vector<float> sorted(lower.begin(), lower.begin() + static_cast<std::ptrdiff_t>(filled));
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        if (n >= k && n <= kCapacity) expected = sorted[static_cast<std::size_t>(k - 1)];
        std::vector<std::int32_t> kept;
        for (std::size_t i = 0; i < filled; ++i) {
          if (upper[i] >= expected) kept.push_back(ids[i]);
        }
        const cuda::Candidates candidates{kCapacity,  lower.data(),  upper.data(),
                                          ids.data(), counts.data(), thresholds.data()};
        device.launch(cuda::RaiseThresholds{candidates, k}, 1, 1, cuda::RaiseThresholds::shared_bytes(kCapacity));
        CHECK(thresholds[0] == expected);
        CHECK(counts[0] == (n > kCapacity ? n : static_cast<int>(kept.size())));
        if (n <= kCapacity) CHECK(std::equal(kept.begin(), kept.end(), ids.begin()));
      }
    }
  }
}

TEST(a_warp_multiplies_matrices_of_integers_exactly) {
  Emulator device;
  std::mt19937 generator(11);
  int a[16][16], b[8][16];
  alignas(16) cuda::half_bits rows[24][8 * 2];  // 16 rows of a, then 8 of b
  for (int i = 0; i < 24; ++i) {
    for (int j = 0; j < 16; ++j) {
      const int value = static_cast<int>(generator() % 65) - 32;
      (i < 16 ? a[i][j] : b[i - 16][j]) = value;
      rows[i][j] = cuda::half_of(static_cast<float>(value));
    }
  }
  device.launch(Phase{[&](cuda::HostBlock& block) {
                  cuda::HostBlock::PerThread<cuda::FragmentA> of_a(block);
                  cuda::HostBlock::PerThread<cuda::FragmentA> of_b(block);  // four matrices; the first two are b
                  cuda::HostBlock::PerThread<cuda::FragmentB> first_two(block);
                  cuda::HostBlock::PerThread<cuda::FragmentC> sums(block);
                  block.each_warp([&](int warp) {
                    block.load_matrices(
                        warp, [&](int thread) { return of_a[thread].pair; },
                        [&](int lane) { return &rows[lane % 16][lane / 16 * 8]; });
                    block.load_matrices(
                        warp, [&](int thread) { return of_b[thread].pair; },
                        [&](int lane) { return &rows[16 + lane % 8][lane / 8 % 2 * 8]; });
                    block.each_lane(warp, [&](int thread, int) {
                      first_two[thread] = {{of_b[thread].pair[0], of_b[thread].pair[1]}};
                      sums[thread] = {{1, 1, 1, 1}};
                    });
                    block.multiply(
                        warp, [&](int thread) -> cuda::FragmentA& { return of_a[thread]; },
                        [&](int thread) -> cuda::FragmentB& { return first_two[thread]; },
                        [&](int thread) -> cuda::FragmentC& { return sums[thread]; });
                    block.each_lane(warp, [&](int thread, int lane) {
                      for (int i = 0; i < 4; ++i) {
                        const int row = cuda::fragment_row(lane, i), column = cuda::fragment_column(lane, i);
                        int expected = 1;
                        for (int k = 0; k < 16; ++k) expected += a[row][k] * b[column][k];
                        CHECK(sums[thread].value[i] == static_cast<float>(expected));
                      }
                    });
                  });
                }},
                1, 1, 0);
}

TEST(searches_answer_as_the_cpu_does_whatever_their_shape) {
  for (const std::int64_t dim : {1, 3, 63, 64, 65, 130}) {
    for (const std::int64_t n_items : {1, 127, 128, 129, 700}) {
      for (const std::int64_t n_queries : {1, 17, 65}) {
        CHECK(gaussian_search(n_items, n_queries, dim, 10).agree());
      }
    }
  }
}

TEST(a_device_with_little_shared_memory_answers_as_the_cpu_does) {
  for (const std::int64_t k : {10, 1000}) {
    Search search = gaussian_search(1200, 70, 70, k);
    CHECK(search.agree({}, 99 << 10));
    search.items[0] = kInfinity;  // one more than 8,192 candidates: their keys no longer fit
    CHECK(search.agree({}, 99 << 10));
  }
  CHECK(gaussian_search(300, 5, 3, 10).agree({}, 1 << 10));
}

TEST(searches_that_run_out_of_room_answer_as_the_cpu_does) {
  const recfuse::SearchLimits tiny{.capacity = 8, .first_items = 1, .growth = 2, .batch_bytes = 1, .keys_bytes = 1};
  const recfuse::SearchLimits small{.capacity = 256, .first_items = 128, .growth = 8, .batch_bytes = 1 << 16};
  for (const auto& limits : {tiny, small}) {
    for (const std::int64_t k : {1, 10, 200}) CHECK(gaussian_search(900, 70, 40, k).agree(limits));
  }
}

TEST(scores_that_rise_with_the_id_and_ties_answer_as_the_cpu_does) {
  for (const Search& search : hardly_told_apart(gaussian_search(1500, 5, 16, 10))) {
    CHECK(search.agree());
    CHECK(search.agree({.capacity = 128, .first_items = 128}));
  }
}

TEST(vectors_that_float16_cannot_hold_answer_as_the_cpu_does) {
  for (const float huge : {1e3F, 1e6F, 1e14F, 1e18F, kInfinity, std::nanf("")}) {
    for (const float tiny : {1e-3F, 1e-8F, 1e-20F, 1e-42F, 0.0F}) {
      Search search = out_of_range(gaussian_search(600, 20, 24, 10), huge, tiny);
      for (const auto metric : {recfuse::Metric::kDot, recfuse::Metric::kCosine}) {
        search.metric = metric;
        CHECK(search.agree());
      }
    }
  }
}

TEST(few_candidates_are_left_where_scores_lie_apart) {
  // So the tests above have tested the screen, not only what answers where it gives up.
  Search search = gaussian_search(20'000, 20, 64, 10);
  const std::vector<MatrixView<const float>> x{{search.items.data(), search.n_items, search.dim}};
  Emulator device;
  const cuda::FusedSearch<Emulator> index(device, {.items = x, .metric = recfuse::Metric::kDot});
  std::vector<std::int32_t> ids(200);
  std::vector<float> scores(200);
  const std::vector<MatrixView<const float>> q{{search.queries.data(), search.n_queries, search.dim}};
  const double weight = 1;
  const cuda::SearchCounts counts = index.topk({.queries = q, .weights = {&weight, 1, 1}, .k = search.k},
                                               {{ids.data(), 20, 10}, {scores.data(), 20, 10}}, {});
  CHECK(counts.unscreened == 0);
  CHECK(counts.candidates < 20 * 14);
  CHECK(counts.candidates >= 20 * 10);
}

TEST(matrices_on_the_device_are_used_in_place_and_those_with_gaps_copied) {
  constexpr std::int64_t kItems = 700, kQueries = 90, kDim = 33, kK = 6, kWide = 40;
  const std::vector<float> items = gaussian(kItems * kWide, 3), queries = gaussian(kQueries * kWide, 4);
  const double weight = 1;
  std::vector<Search::Answer> answers;
  for (const std::int64_t stride : {kDim, kWide}) {
    const std::vector<MatrixView<const float>> x{{items.data(), kItems, kDim, stride}};
    const std::vector<MatrixView<const float>> q{{queries.data(), kQueries, kDim, stride}};
    const recfuse::FuseTopkArgs asked{.queries = q, .weights = {&weight, 1, 1}, .k = kK};
    std::vector<std::size_t> taken;
    for (const char there : {char{0}, char{1}}) {
      Emulator device;
      const std::size_t before = Emulator::memory.used;
      const cuda::FusedSearch<Emulator> index(device, {.items = x, .metric = recfuse::Metric::kDot},
                                              {.batch_bytes = 1 << 20}, {there});
      taken.push_back(Emulator::memory.used - before);
      Search::Answer answer{std::vector<std::int32_t>(kQueries * kK), std::vector<float>(kQueries * kK)};
      index.topk(asked, {{answer.ids.data(), kQueries, kK}, {answer.scores.data(), kQueries, kK}}, {}, {there});
      answers.push_back(std::move(answer));
    }
    CHECK(answers[answers.size() - 2] == answers.back());
    CHECK(taken[0] - taken[1] == (stride == kDim ? kItems * kDim * sizeof(float) : 0));
  }
  CHECK(!(answers.front() == answers.back()));
}

TEST(a_search_that_does_not_fit_gives_everything_back) {
  const Search search = gaussian_search(3'000, 10, 64, 10);
  const std::vector<MatrixView<const float>> x{{search.items.data(), search.n_items, search.dim}};
  Emulator device;
  const std::size_t before = Emulator::memory.used;
  std::size_t refused = 0;
  for (std::size_t bytes = 0; bytes < (4 << 20); bytes += 40'000) {
    Emulator::memory.total = before + bytes;
    try {
      const cuda::FusedSearch<Emulator> index(device, {.items = x, .metric = recfuse::Metric::kDot});
      search.ask(index);
    } catch (const recfuse::DeviceOutOfMemory&) {
      ++refused;
    }
    CHECK(Emulator::memory.used == before);
  }
  Emulator::memory.total = std::numeric_limits<std::size_t>::max();
  CHECK(refused > 20 && refused < 100);
  CHECK(search.agree());
}
