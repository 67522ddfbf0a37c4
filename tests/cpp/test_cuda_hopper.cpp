// The kernel of compute capability 9.0, run by the emulator: its products, its barriers, what it finds. That a device
// does with its instructions what the emulator does, only a device can tell (tools/gpu_check.sh).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "check.hpp"
#include "cuda_search.hpp"

using namespace recfuse::testing;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
using Crew = cuda::Crew<cuda::HostBlock>;

/// A kernel of roles that a test gives: one that loads and one group that multiplies.
template <class Load, class Multiply>
struct TwoRoles {
  static constexpr int kThreads = 2 * cuda::kGroupThreads;
  struct Shared {
    alignas(1024) char slab[2][cuda::kProductColumns * cuda::kRowBytes];
    cuda::Barrier full, empty;
  };
  Load load;
  Multiply multiply;

  void operator()(cuda::HostBlock& block) const {
    auto& shared = *reinterpret_cast<Shared*>(block.shared());
    Crew::start(shared.full, 1);
    Crew::start(shared.empty, cuda::kGroupWarps);
    Crew::run<1>(block, [&](auto& loader) { load(loader, shared); }, [&](auto& group) { multiply(group, shared); });
  }
};

template <class Load, class Multiply>
std::string failure_of(Load load, Multiply multiply) {
  using Body = TwoRoles<Load, Multiply>;
  return thrown_message<recfuse::DeviceError>([&] {
    Emulator device;
    device.launch(Body{load, multiply}, 1, 1, sizeof(typename Body::Shared));
  });
}

constexpr int kSlabBytes = cuda::kProductColumns * cuda::kRowBytes;

/// Slabs of small integers, and the image of them.
struct Slab {
  explicit Slab(unsigned seed) : values(cuda::kProductColumns * cuda::kSlab), image(values.size()) {
    std::mt19937 generator(seed);
    for (int row = 0; row < cuda::kProductColumns; ++row) {
      for (int column = 0; column < cuda::kSlab; ++column) {
        const auto at = static_cast<std::size_t>(row * cuda::kSlab + column);
        values[at] = static_cast<int>(generator() % 17) - 8;
        image[static_cast<std::size_t>(cuda::image_index(0, cuda::kProductColumns, 1, row, column))] =
            cuda::half_of(static_cast<float>(values[at]));
      }
    }
  }
  int at(int row, int column) const { return values[static_cast<std::size_t>(row * cuda::kSlab + column)]; }
  const char* bytes() const { return reinterpret_cast<const char*>(image.data()); }

  std::vector<int> values;
  std::vector<cuda::half_bits> image;
};

}  // namespace

TEST(an_operand_says_where_every_chunk_of_a_slab_lies) {
  for (const std::uint32_t slab : {0U, 1024U, 16384U, 196608U}) {
    for (int k = 0; k < cuda::kSlab / cuda::kProductDepth; ++k) {
      const std::uint64_t operand = cuda::operand_at(slab) + static_cast<std::uint64_t>(2 * k);
      for (int row = 0; row < cuda::kProductColumns; ++row) {
        for (int chunk = 0; chunk < 2; ++chunk) {
          CHECK(cuda::chunk_address(operand, row, chunk) ==
                slab + static_cast<std::uint32_t>(cuda::chunk_offset(row, 2 * k + chunk)));
        }
      }
    }
  }
  CHECK(cuda::operand_at(196608) == 0x4000004000010000U + 196608 / 16);
}

TEST(a_group_multiplies_slabs_of_integers_exactly) {
  const Slab a(1), b(2);
  const std::string failure = failure_of(
      [&](auto& loader, auto& shared) {
        loader.expect(shared.full, 2 * kSlabBytes);
        loader.copy(shared.slab[0], a.bytes(), kSlabBytes, shared.full);
        loader.copy(shared.slab[1], b.bytes(), kSlabBytes, shared.full);
      },
      [&](auto& group, auto& shared) {
        typename std::remove_reference_t<decltype(group)>::template PerThread<cuda::ProductSums> sums(group);
        group.wait(shared.full, 0);
        group.begin_products();
        const std::uint64_t of_a = cuda::operand_at(group.address(shared.slab[0]) + 64 * cuda::kRowBytes);
        const std::uint64_t of_b = cuda::operand_at(group.address(shared.slab[1]));
        for (std::uint64_t k = 0; k < 4; ++k) {
          group.multiply([&](int thread) -> cuda::ProductSums& { return sums[thread]; }, of_a + 2 * k, of_b + 2 * k,
                         k > 0);
        }
        group.end_products();
        CHECK(std::isnan(sums[0].value[0]));
        group.template wait_for_products<0>();
        for (int thread = 0; thread < cuda::kGroupThreads; ++thread) {
          for (int i = 0; i < 64; ++i) {
            const int row = cuda::product_row(thread / 32, thread % 32, i / 2 % 2);
            const int column = cuda::product_column(thread % 32, i / 4, i % 2);
            int expected = 0;
            for (int k = 0; k < cuda::kSlab; ++k) expected += a.at(64 + row, k) * b.at(column, k);
            CHECK(sums[thread].value[i] == static_cast<float>(expected));
          }
        }
      });
  CHECK(failure.empty());
}

TEST(sums_have_a_thread_each) {
  std::vector<int> owners(cuda::kProductRows * cuda::kProductColumns, 0);
  for (int thread = 0; thread < cuda::kGroupThreads; ++thread) {
    for (int i = 0; i < 64; ++i) {
      const int row = cuda::product_row(thread / 32, thread % 32, i / 2 % 2);
      const int column = cuda::product_column(thread % 32, i / 4, i % 2);
      ++owners[static_cast<std::size_t>(row * cuda::kProductColumns + column)];
    }
  }
  CHECK(std::all_of(owners.begin(), owners.end(), [](int n) { return n == 1; }));
}

TEST(what_would_go_wrong_on_a_device_at_times_is_told) {
  const Slab slab(1);
  const auto load = [&](auto& loader, auto& shared) {
    loader.expect(shared.full, kSlabBytes);
    loader.copy(shared.slab[0], slab.bytes(), kSlabBytes, shared.full);
  };
  const auto nothing = [](auto&, auto&) {};
  const auto multiply = [](auto& group, auto& shared) {
    static thread_local std::vector<cuda::ProductSums> sums(cuda::kGroupThreads);
    const std::uint64_t operand = cuda::operand_at(group.address(shared.slab[0]));
    group.multiply([&](int thread) -> cuda::ProductSums& { return sums[static_cast<std::size_t>(thread)]; }, operand,
                   operand, false);
    group.end_products();
  };
  CHECK(failure_of(load, nothing).empty());
  CHECK(failure_of(nothing, [](auto& group, auto& shared) { group.wait(shared.full, 0); }) ==
        "the roles of a block wait for each other");
  CHECK(failure_of([&](auto& loader, auto& shared) { loader.expect(shared.full, kSlabBytes); },
                   [](auto& group, auto& shared) { group.wait(shared.full, 0); }) ==
        "the roles of a block wait for each other");
  CHECK(failure_of(
            [&](auto& loader, auto& shared) {
              load(loader, shared);
              loader.copy(shared.slab[0] + 1024, slab.bytes(), 1024, shared.full);
            },
            nothing) == "two copies to the same shared memory");
  CHECK(failure_of(
            [&](auto& loader, auto& shared) {
              load(loader, shared);
              loader.expect(shared.full, 16);
            },
            nothing) == "more arrivals at a barrier than it expects");
  CHECK(failure_of(load, [&](auto& group, auto& shared) {
          group.wait(shared.full, 0);
          multiply(group, shared);
        }) == "products that nothing separates from other uses of their sums");
  CHECK(failure_of(
            [&](auto& loader, auto& shared) {
              load(loader, shared);
              loader.wait(shared.empty, 0);
            },
            [&](auto& group, auto& shared) {
              group.arrive(shared.empty);
              group.begin_products();
              multiply(group, shared);
            }) == "a product reads what a copy has not brought yet");
  CHECK(failure_of(
            [&](auto& loader, auto& shared) {
              load(loader, shared);
              loader.wait(shared.empty, 0);
              load(loader, shared);
            },
            [&](auto& group, auto& shared) {
              group.wait(shared.full, 0);
              group.begin_products();
              multiply(group, shared);
              group.arrive(shared.empty);  // before the product is waited for
              group.wait(shared.full, 1);
            }) == "a copy overwrites what a product still reads");
  CHECK(failure_of(nothing, [](auto& group, auto& shared) {
          group.arrive(shared.empty);
          group.arrive(shared.empty);
          group.wait(shared.empty, 0);  // two phases have passed: a parity does not tell
        }) == "somebody waits for a phase that the parity of a barrier does not tell");
}

namespace {

/// Items and queries of small integers, whose sums are exact; what a scan has to find is known.
struct Scanned {
  static constexpr int kCapacity = 1024;

  Scanned(std::int64_t n, int n_slabs, std::int64_t n_tiles, int holes) : n_queries(n) {
    std::mt19937 generator(static_cast<unsigned>(n_queries + 7 * n_slabs));
    const std::int64_t columns = n_slabs * std::int64_t{cuda::kSlab}, n_items = n_tiles * cuda::kTileItems;
    const std::int64_t padded = (n_queries + 255) / 256 * 256;
    const auto fill = [&](std::vector<cuda::half_bits>& image, std::vector<int>& values, std::int64_t rows,
                          int height) {
      image.assign(static_cast<std::size_t>(rows * columns), 0);
      values.assign(image.size(), 0);
      for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t j = 0; j < columns; ++j) {
          const int value = static_cast<int>(generator() % 7) - 3;
          values[static_cast<std::size_t>(row * columns + j)] = value;
          image[static_cast<std::size_t>(
              cuda::image_index(row / height, height, n_slabs, static_cast<int>(row % height), j))] =
              cuda::half_of(static_cast<float>(value));
        }
      }
    };
    std::vector<int> x, q;
    fill(items, x, n_items, cuda::kTileItems);
    fill(queries, q, padded, 256);
    for (std::int64_t i = 0; i < n_items; ++i) {
      ids.push_back(holes > 0 && i % holes == 0 ? -1 : static_cast<std::int32_t>(n_items - i));
    }
    for (std::int64_t i = 0; i < n_queries; ++i) {
      for (std::int64_t j = 0; j < n_items; ++j) {
        int sum = 0;
        for (std::int64_t c = 0; c < columns; ++c) {
          sum += q[static_cast<std::size_t>(i * columns + c)] * x[static_cast<std::size_t>(j * columns + c)];
        }
        sums.push_back(sum);
      }
    }
    groups.assign(static_cast<std::size_t>(n_tiles), 0);
    norms.assign(static_cast<std::size_t>(2 * n_tiles), 0.0);
    bounds.assign(static_cast<std::size_t>(n_queries), {0, 0});
    ones.assign(static_cast<std::size_t>(n_queries), 1.0);
    cuda_tiles = {items.data(), ids.data(), groups.data(), norms.data(), &present, n_slabs, 1, 1};
  }

  /// Whether a scan finds all sums of at least `least` of all queries but the first, and nothing else.
  template <class Body>
  bool finds(float least, std::int64_t per_block) {
    std::vector<float> lower(static_cast<std::size_t>(n_queries * kCapacity)), upper(lower.size());
    std::vector<std::int32_t> found(lower.size()), counts(static_cast<std::size_t>(n_queries), 0);
    std::vector<float> thresholds(counts.size(), least);
    std::vector<double> scales = ones;
    scales[0] = 0;
    const auto n_tiles = static_cast<std::int64_t>(groups.size());
    Emulator device;
    device.launch(Body{{cuda_tiles,
                        {queries.data(), bounds.data(), scales.data(), ones.data(), n_queries},
                        {kCapacity, lower.data(), upper.data(), found.data(), counts.data(), thresholds.data()},
                        {}},
                       0,
                       n_tiles,
                       per_block},
                  (n_queries + 255) / 256, (n_tiles + per_block - 1) / per_block, Body::kSharedBytes);
    bool right = counts[0] == 0;
    for (std::int64_t q = 1; q < n_queries; ++q) {
      std::map<std::int32_t, float> expected, got;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const auto sum = static_cast<float>(sums[static_cast<std::size_t>(q) * ids.size() + i]);
        if (ids[i] >= 0 && sum >= least) expected[ids[i]] = sum;
      }
      const int n = counts[static_cast<std::size_t>(q)];
      for (int i = 0; i < std::min(n, kCapacity); ++i) {
        const auto at = static_cast<std::size_t>(q * kCapacity + i);
        right = right && upper[at] - lower[at] <= 1e-30F;  // no more than covers underflow
        got[found[at]] = (lower[at] + upper[at]) / 2;
      }
      right = right && n == static_cast<int>(expected.size()) && got == expected;
    }
    return right;
  }

  std::int64_t n_queries;
  std::vector<cuda::half_bits> items, queries;
  std::vector<std::int32_t> ids, groups;
  std::vector<int> sums;
  std::vector<double> norms, ones;
  std::vector<cuda::QueryBound> bounds;
  char present = 1;
  cuda::Tiles cuda_tiles{};
};

}  // namespace

TEST(a_scan_finds_what_reaches_the_threshold_and_nothing_else) {
  // One slab to four stay in shared memory, five do not; with one and two groups take turns.
  for (const int n_slabs : {1, 2, 3, 4, 5}) {
    Scanned scanned(n_slabs == 2 ? 300 : 130, n_slabs, 5, n_slabs % 2 == 0 ? 5 : 0);
    const auto deviation = static_cast<float>(4 * std::sqrt(64.0 * n_slabs));
    for (const float least : {-kInfinity, 0.5F, 2 * deviation - 0.5F, kInfinity}) {
      CHECK(scanned.finds<cuda::HopperScreen>(least, 5));
      CHECK(scanned.finds<cuda::HopperScreen>(least, 2));
    }
    CHECK(scanned.finds<cuda::ScreenMany>(2 * deviation - 0.5F, 2));
  }
}

TEST(a_scan_of_more_tiles_than_notes_can_count_finds_the_same) {
  Scanned scanned(70, 1, 7, 0);
  for (const float least : {-kInfinity, 60.5F, 100.5F}) CHECK(scanned.finds<cuda::HopperScan<1>>(least, 7));
}

namespace {

Search hopper_search(std::int64_t n_items, std::int64_t n_queries, std::int64_t dim, std::int64_t k) {
  Search search = gaussian_search(n_items, n_queries, dim, k);
  search.hopper = true;
  return search;
}

}  // namespace

TEST(searches_answer_as_the_cpu_does_whatever_their_shape) {
  for (const std::int64_t dim : {1, 65, 130, 256, 321}) {
    for (const std::int64_t n_items : {1, 128, 129, 900}) {
      CHECK(hopper_search(n_items, 65, dim, 10).agree());
    }
    CHECK(hopper_search(700, 257, dim, 100).agree());
  }
}

TEST(searches_that_run_out_of_room_answer_as_the_cpu_does) {
  const recfuse::SearchLimits tiny{.capacity = 8, .first_items = 1, .growth = 2, .batch_bytes = 8192, .keys_bytes = 1};
  const recfuse::SearchLimits small{.capacity = 256, .first_items = 128, .growth = 8, .batch_bytes = 1 << 18};
  for (const auto& limits : {tiny, small}) {
    for (const std::int64_t k : {1, 10, 200}) CHECK(hopper_search(900, 70, 40, k).agree(limits));
  }
}

TEST(scores_that_rise_with_the_id_and_ties_answer_as_the_cpu_does) {
  for (const Search& search : hardly_told_apart(hopper_search(1500, 66, 16, 10))) {
    CHECK(search.agree());
    CHECK(search.agree({.capacity = 128, .first_items = 128}));
  }
}

TEST(vectors_that_float16_cannot_hold_answer_as_the_cpu_does) {
  for (const float huge : {1e6F, 1e18F, kInfinity, std::nanf("")}) {
    for (const float tiny : {1e-8F, 1e-42F, 0.0F}) {
      Search search = out_of_range(hopper_search(600, 67, 24, 10), huge, tiny);
      search.metric = huge == 1e6F ? recfuse::Metric::kCosine : recfuse::Metric::kDot;
      CHECK(search.agree());
    }
  }
}

TEST(the_kernels_can_be_forced_and_an_unknown_name_lists_those_there_are) {
  const auto chosen = [](bool hopper, std::size_t shared_bytes, bool few) {
    Emulator device;
    device.set_hopper(hopper);
    device.set_most_shared_bytes(shared_bytes);
    return cuda::with_screen(device, few, [](auto body) {
      using Body = typename decltype(body)::type;
      return std::is_same_v<Body, cuda::HopperScreen> ? 'h' : std::is_same_v<Body, cuda::ScreenFew> ? 'f' : 'p';
    });
  };
  constexpr std::size_t kMuch = 227 << 10;
  CHECK(chosen(true, kMuch, false) == 'h');
  CHECK(chosen(true, kMuch, true) == 'f');
  CHECK(chosen(true, cuda::HopperScreen::kSharedBytes - 1, false) == 'p');
  CHECK(chosen(false, kMuch, false) == 'p');
  setenv("RECFUSE_CUDA_ISA", "sm_80", 1);
  CHECK(chosen(true, kMuch, false) == 'p');
  setenv("RECFUSE_CUDA_ISA", "sm_90a", 1);
  CHECK(chosen(true, kMuch, false) == 'h');
  CHECK_THROWS(std::invalid_argument,
               "RECFUSE_CUDA_ISA must be one of those that this device runs (sm_80); got 'sm_90a'",
               chosen(false, kMuch, false));
  setenv("RECFUSE_CUDA_ISA", "sm_70", 1);
  CHECK_THROWS(std::invalid_argument,
               "RECFUSE_CUDA_ISA must be one of those that this device runs (sm_90a, sm_80); got 'sm_70'",
               chosen(true, kMuch, true));
  setenv("RECFUSE_CUDA_ISA", "", 1);
  CHECK(chosen(true, kMuch, false) == 'h');
}
