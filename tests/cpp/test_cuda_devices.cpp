// Searches on several emulated devices: what they give must not depend on how the items are divided, a device must not
// read another one's memory, and one that fails must not take the others with it.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "cuda_search.hpp"
#include "sharded_search.cuh"

namespace {

using namespace recfuse::testing;
using cuda::EmulatedMemory;
using Sharded = cuda::ShardedSearch<Emulator>;

struct Fails {
  static constexpr int kThreads = 1;
  const float* address;
  template <class Block>
  void operator()(Block& block) const {
    block.each_thread([](int) {});
  }
};

/// The answers of some devices, and of the CPU.
struct Divided {
  Divided(const Search& search, const std::vector<int>& devices, const recfuse::SearchLimits& limits = {})
      : x{{search.items.data(), search.n_items, search.dim}},
        on_cpu({.items = x, .metric = search.metric}),
        index(devices, {.items = x, .metric = search.metric}, {}, limits) {}

  std::vector<MatrixView<const float>> x;
  recfuse::FusedIndex on_cpu;
  Sharded index;
};

TEST(any_number_of_devices_answers_as_the_cpu_does) {
  const Search search = gaussian_search(1'009, 70, 16, 25);
  for (const Search& one :
       {search, hardly_told_apart(search)[0], hardly_told_apart(search)[1], out_of_range(search, 1e30F, 1e-20F)}) {
    for (const std::vector<int>& devices :
         {std::vector<int>{3}, {0, 0}, {0, 1}, {2, 1, 0}, {1, 1, 2}, {0, 1, 2, 3, 4, 5, 6}}) {
      const Divided both(one, devices);
      CHECK(one.ask(both.index) == one.ask(both.on_cpu));
    }
  }
}

TEST(lists_longer_than_what_a_device_has) {
  for (const std::int64_t n_items : {1, 2, 5, 40}) {
    for (const std::int64_t k : {1, 5, 39, 100}) {
      const Search search = gaussian_search(n_items, 3, 4, k);
      const Divided both(search, {0, 1, 2, 0, 1, 2, 0});
      CHECK(search.ask(both.index) == search.ask(both.on_cpu));
    }
  }
}

TEST(filters_that_leave_a_device_nothing) {
  Search search = gaussian_search(900, 6, 8, 12);
  for (std::int32_t q = 0; q < 6; ++q) {
    search.exclude_indptr.push_back(q * 300);
    for (std::int32_t id = 300; id < 600; ++id) search.exclude.push_back(id);
  }
  search.exclude_indptr.push_back(1'800);
  CHECK(search.ask(Divided(search, {0, 1, 2}).index) == search.ask(Divided(search, {0}).on_cpu));
  search.has_allow_ids = true;
  search.allow_ids = {899, 3, 3, 450};
  CHECK(search.ask(Divided(search, {0, 1, 2}).index) == search.ask(Divided(search, {0}).on_cpu));
  search.allow_ids.clear();
  CHECK(search.ask(Divided(search, {0, 1, 2}).index) == search.ask(Divided(search, {0}).on_cpu));
}

TEST(each_device_looks_at_its_own_items) {
  Search search = gaussian_search(4'000, 20, 8, 5);
  search.has_allow_ids = true;
  for (std::int32_t id = 0; id < 300; ++id) search.allow_ids.push_back(id);
  const Divided both(search, {0, 1}, {.launch_bytes = 0});
  cuda::SearchCounts counts;
  search.ask(both.index, [&](const cuda::SearchCounts& one) { counts = one; });
  CHECK(counts.gathered == 300);
  search.n_queries = 2;
  search.allow_ids.resize(8);
  search.allow_ids.push_back(3'999);
  search.ask(both.index, [&](const cuda::SearchCounts& one) { counts = one; });
  CHECK(counts.listed == 2 * 9);
  CHECK(both.index.plan().item_bytes == 4'000 * 8 * 4);
}

TEST(blocks_of_two_ranges_on_one_device_take_turns) {
  const Search search = gaussian_search(6'000, 10, 12, 30);
  EmulatedMemory::of(1).total = EmulatedMemory::of(1).used + 250'000;
  {
    const Divided both(search, {1, 1, 0}, {.capacity = 64, .least_block = 128});
    const std::string reason = both.index.plan().reason;
    CHECK(reason.find("streamed") != std::string::npos);
    CHECK(reason.rfind("streamed") < reason.find("cuda:0"));
    const Search::Answer expected = search.ask(both.on_cpu);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 2; ++thread) {
      threads.emplace_back([&] { wrong += search.ask(both.index) == expected ? 0 : 1; });
    }
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
  }
  EmulatedMemory::of(1).total = std::numeric_limits<std::size_t>::max();
  CHECK(EmulatedMemory::of(1).used == 0);
}

TEST(threads_that_ask_several_devices_at_once) {
  const Search search = gaussian_search(1'500, 3, 16, 5);
  const Divided both(search, {0, 1, 0});
  const Search::Answer expected = search.ask(both.on_cpu);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 3; ++i) wrong += search.ask(both.index) == expected ? 0 : 1;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST(a_device_that_fails_is_named_and_the_others_go_on) {
  const Search search = gaussian_search(500, 4, 8, 5);
  const Divided both(search, {0, 1, 2}), others(search, {2, 0});
  const Search::Answer expected = search.ask(both.on_cpu);
  for (const std::int64_t launches : {0, 1, 2}) {
    EmulatedMemory::of(1).launches_left = launches;
    CHECK_THROWS(recfuse::DeviceError, "cuda:1: a kernel has failed, as a test wanted", search.ask(both.index));
    CHECK_THROWS(recfuse::DeviceError, "cuda:1: a kernel has failed, as a test wanted", Divided(search, {0, 1}));
    CHECK(search.ask(others.index) == expected);
  }
  EmulatedMemory::of(1).launches_left = std::numeric_limits<std::int64_t>::max();
  CHECK(search.ask(both.index) == expected);
}

TEST(all_have_ended_when_one_that_failed_is_told) {
  std::atomic<int> ended{0};
  const auto task = [&](std::size_t i) {
    if (i == 1) throw std::runtime_error("one");
    if (i == 2) throw std::runtime_error("two");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ++ended;
  };
  CHECK_THROWS(std::runtime_error, "one", cuda::in_parallel(5, task));
  CHECK(ended == 3);
  cuda::in_parallel(0, task);
}

// A device must not read what another one has.

TEST(a_kernel_with_an_address_on_another_device_does_not_run) {
  Emulator first(0), second(1);
  const std::vector<float> values{1, 2, 3};
  const Emulator::Array<float> there(second, std::span<const float>(values));
  first.launch(Fails{values.data()}, 1, 1, 0);
  second.launch(Fails{there.data() + 2}, 1, 1, 0);
#if __has_builtin(__builtin_clear_padding)
  CHECK_THROWS(recfuse::DeviceError, "a kernel on cuda:0 has an address in the memory of cuda:1",
               first.launch(Fails{there.data() + 2}, 1, 1, 0));
#endif
  Emulator::Array<float> here(first, 3);
  CHECK_THROWS(recfuse::DeviceError, "a copy on cuda:0 has an address in the memory of cuda:1",
               here.write({there.data(), 3}));
  CHECK_THROWS(recfuse::DeviceError, "a copy on cuda:0 has an address in the memory of cuda:1",
               here.write_rows(there.data(), 1, 3, 3));
  const std::vector<const float*> addresses{there.data()};
  CHECK_THROWS(recfuse::DeviceError, "a copy on cuda:0 has an address in the memory of cuda:1",
               Emulator::Array<const float*>(first, std::span<const float* const>(addresses)));
  here.copy_rows_of_peer(there.data(), 1, 3, 3);
  CHECK(here.all() == values);
}

TEST(matrices_on_one_device_are_copied_to_the_others) {
  const Search search = gaussian_search(300, 70, 8, 9);
  Emulator first(0);
  const Emulator::Array<float> items(first, std::span<const float>(search.items));
  const Emulator::Array<float> queries(first, std::span<const float>(search.queries));
  const std::vector<MatrixView<const float>> x{{items.data(), 300, 8}}, q{{queries.data(), 70, 8}};
  const cuda::Placement placement{{1}, {0}};
  const double weight = 1;
  for (const std::vector<int>& devices : {std::vector<int>{0, 1}, {1, 2, 0}, {2, 2}}) {
    const Sharded index(devices, {.items = x, .metric = search.metric}, placement);
    Search::Answer answer{std::vector<std::int32_t>(70 * 9), std::vector<float>(70 * 9)};
    index.topk({.queries = q, .weights = {&weight, 1, 1}, .k = 9},
               {{answer.ids.data(), 70, 9}, {answer.scores.data(), 70, 9}}, {}, placement);
    CHECK(answer == search.ask(Divided(search, {0}).on_cpu));
  }
}

}  // namespace
