// The ways of a search on a device, run by the emulator: items in blocks, lists of few items, recorded requests,
// fusions that are no sums. All answer as the CPU does; counts tell that the way was taken.
#include <atomic>
#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "cuda_search.hpp"

namespace {

namespace cuda = recfuse::cuda;
using cuda::Emulator;
using recfuse::MatrixView;
using recfuse::testing::gaussian;
using recfuse::testing::gaussian_search;
using recfuse::testing::Search;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

namespace {

/// Leaves the emulator so much memory, for as long as it lives.
struct Memory {
  explicit Memory(std::size_t bytes) { Emulator::memory.total = Emulator::memory.used + bytes; }
  ~Memory() { Emulator::memory.total = std::numeric_limits<std::size_t>::max(); }
};

}  // namespace

TEST(items_that_do_not_fit_are_streamed_with_the_answer_of_the_cpu) {
  for (const std::int64_t k : {1, 10, 300}) {  // more than a block has
    for (const std::int64_t n_queries : {3, 70}) {
      for (const bool alike : {false, true}) {
        Search search = gaussian_search(2'000, n_queries, 24, k);
        if (alike) std::fill(search.items.begin() + 24 * 100, search.items.begin() + 24 * 1900, 0.5F);
        search.items[24 * 1950] = kInfinity;
        const std::vector<MatrixView<const float>> x{{search.items.data(), search.n_items, search.dim}};
        const recfuse::FusedItemsArgs args{.items = x, .metric = recfuse::Metric::kDot};
        const Search::Answer expected = search.ask(recfuse::FusedIndex(args));
        const recfuse::SearchLimits limits{.capacity = 64, .search_bytes = 1 << 30, .least_block = 1};
        const std::size_t before = Emulator::memory.used;
        for (const std::size_t bytes : {100'000, 200'000, 400'000}) {
          const Memory little(bytes);
          Emulator device;
          const cuda::FusedSearch<Emulator> index(device, args, limits);
          CHECK(index.plan().reason.find("streamed in") != std::string::npos);
          CHECK(search.ask(index) == expected);
        }
        CHECK(Emulator::memory.used == before);
      }
    }
  }
}

namespace {

/// Rows of `per_query` ids each, which ascend.
void fill_rows(std::vector<std::int64_t>& indptr, std::vector<std::int32_t>& indices, const Search& search,
               std::int64_t per_query, std::int64_t n_ids, unsigned seed) {
  std::mt19937 generator(seed);
  indptr = {0};
  for (std::int64_t q = 0; q < search.n_queries; ++q) {
    std::set<std::int32_t> row;
    for (std::int64_t i = 0; i < per_query; ++i) row.insert(static_cast<std::int32_t>(generator() % n_ids));
    indices.insert(indices.end(), row.begin(), row.end());
    indptr.push_back(static_cast<std::int64_t>(indices.size()));
  }
}

/// What the emulator counts while it answers as the CPU does.
recfuse::cuda::SearchCounts counted(const Search& search, std::int64_t launch_bytes = 0) {
  const std::vector<MatrixView<const float>> x{{search.items.data(), search.n_items, search.dim}};
  const recfuse::FusedItemsArgs args{.items = x, .metric = search.metric};
  Emulator device;
  const cuda::FusedSearch<Emulator> index(device, args, {.launch_bytes = launch_bytes});
  recfuse::cuda::SearchCounts counts;
  CHECK(search.ask(index, [&](const auto& seen) { counts = seen; }) == search.ask(recfuse::FusedIndex(args)));
  return counts;
}

}  // namespace

TEST(lists_of_few_items_are_looked_at_alone) {
  Search search = gaussian_search(5'000, 70, 24, 10);
  std::copy_n(search.items.begin(), 24, search.items.begin() + 24 * 2000);  // a tie
  search.items[24 * 1000] = kInfinity;
  for (const bool excludes : {false, true}) {
    if (excludes) fill_rows(search.exclude_indptr, search.exclude, search, 400, search.n_items, 3);
    search.has_allow_ids = true;
    search.allow_ids = {2000, 7, 0, 7, 1000, 4999};
    CHECK(counted(search, 20 << 20).listed == 70 * 5);
    search.allow_ids.clear();
    CHECK(counted(search).listed == 0);
    for (std::int32_t id = 0; id < 600; ++id) search.allow_ids.push_back(4'200 - 7 * id);
    const cuda::SearchCounts gathered = counted(search);
    CHECK(gathered.gathered == 600 && gathered.listed == 0);
    search.allow_ids.clear();
    for (std::int32_t id = 0; id < 4'900; ++id) search.allow_ids.push_back(id);
    const cuda::SearchCounts scanned = counted(search);
    CHECK(scanned.gathered == 0 && scanned.listed == 0 && scanned.candidates > 0);
    search.has_allow_ids = false;
    search.allow_ids.clear();
    fill_rows(search.allow_indptr, search.allow, search, 4, search.n_items, 4);
    CHECK(counted(search).listed == search.allow_indptr.back());
    search.allow.clear();
    fill_rows(search.allow_indptr, search.allow, search, 300, 500, 5);
    CHECK(counted(search).gathered > 400);
    search.allow.clear();
    fill_rows(search.allow_indptr, search.allow, search, 2'000, search.n_items, 6);
    const cuda::SearchCounts filtered = counted(search);
    CHECK(filtered.gathered == 0 && filtered.listed == 0 && filtered.unscreened == 0);
    search.allow_indptr.clear();
    search.allow.clear();
  }
}

TEST(lists_decide_which_items_are_streamed) {
  Search search = gaussian_search(3'000, 20, 24, 10);
  search.has_allow_ids = true;
  for (std::int32_t id = 0; id < 1'000; ++id) search.allow_ids.push_back(3 * id);
  const std::vector<MatrixView<const float>> x{{search.items.data(), search.n_items, search.dim}};
  const recfuse::FusedItemsArgs args{.items = x, .metric = recfuse::Metric::kCosine};
  const Memory little(200'000);
  Emulator device;
  const cuda::FusedSearch<Emulator> index(device, args, {.capacity = 64, .least_block = 1});
  cuda::SearchCounts counts;
  const Search::Answer answer = search.ask(index, [&](const auto& seen) { counts = seen; });
  CHECK(answer == search.ask(recfuse::FusedIndex(args)));
  CHECK(counts.gathered == 1'000);
}

TEST(items_on_the_device_whose_tiles_do_not_fit_are_streamed_from_there) {
  constexpr std::int64_t kItems = 2'000, kQueries = 20, kDim = 24, kWide = 31, kK = 6;
  const std::vector<float> here = gaussian(kItems * kWide, 3), queries = gaussian(kQueries * 2 * kDim, 4);
  const double weights[] = {1, 0.5};
  const std::vector<MatrixView<const float>> q{{queries.data(), kQueries, kDim, 2 * kDim},
                                               {queries.data() + kDim, kQueries, kDim, 2 * kDim}};
  // In place; with gaps, so copied there; and in the memory of the host beside it.
  const MatrixView<const float> dense{here.data(), kItems, kDim}, gaps{here.data(), kItems, kDim, kWide};
  for (const auto& [x, placed] : std::vector<std::pair<std::vector<MatrixView<const float>>, std::vector<char>>>{
           {{dense, gaps}, {1, 1}}, {{gaps, dense}, {0, 1}}, {{gaps, gaps}, {1, 0}}}) {
    const recfuse::FusedItemsArgs args{.items = x, .metric = recfuse::Metric::kCosine};
    const recfuse::FusedIndex on_cpu(args);
    const Memory little(300'000);
    Emulator device;
    const cuda::FusedSearch<Emulator> index(device, args, {.capacity = 64, .least_block = 1}, placed);
    CHECK(index.plan().reason.find("streamed in") != std::string::npos);
    std::vector<std::int32_t> list;
    for (std::int32_t id = 0; id < 900; ++id) list.push_back(2 * id);
    for (const bool listed : {false, true}) {
      recfuse::FuseTopkArgs asked{.queries = q, .weights = {weights, 1, 2}, .k = kK};
      if (listed) asked.allow_ids = list;
      asked.has_allow_ids = listed;
      std::vector<Search::Answer> answers(2);
      std::vector<std::vector<double>> parts(2, std::vector<double>(kQueries * kK * 2));
      const auto ask = [&](const auto& asked_index, std::size_t i) {
        answers[i] = {std::vector<std::int32_t>(kQueries * kK), std::vector<float>(kQueries * kK)};
        asked_index.topk(asked, {{answers[i].ids.data(), kQueries, kK}, {answers[i].scores.data(), kQueries, kK}},
                         {parts[i].data(), kQueries, kK * 2});
      };
      ask(on_cpu, 0);
      ask(index, 1);
      CHECK(answers[0] == answers[1]);
      CHECK(parts[0] == parts[1]);
    }
  }
}

namespace {

/// An index on the emulator and that of the CPU, asked the same.
struct Both {
  explicit Both(const Search& search)
      : views{{search.items.data(), search.n_items, search.dim}},
        args{.items = views, .metric = search.metric},
        on_cpu(args),
        index(device, args) {}

  cuda::SearchCounts ask(const Search& search) const {
    cuda::SearchCounts counts;
    CHECK(search.ask(index, [&](const auto& seen) { counts = seen; }) == search.ask(on_cpu));
    return counts;
  }

  std::vector<MatrixView<const float>> views;
  recfuse::FusedItemsArgs args;
  recfuse::FusedIndex on_cpu;
  Emulator device;
  cuda::FusedSearch<Emulator> index;
};

}  // namespace

TEST(small_requests_of_one_shape_share_a_recording_and_allocate_nothing) {
  Search search = gaussian_search(2'000, 5, 24, 10);
  search.items[24 * 1500] = kInfinity;
  const Both both(search);
  for (const bool excludes : {false, true}) {
    if (excludes) fill_rows(search.exclude_indptr, search.exclude, search, 300, search.n_items, 3);
    CHECK(both.ask(search).recorded == 1);
    for (unsigned seed = 10; seed < 13; ++seed) {
      search.queries = gaussian(5 * 24, seed);
      if (seed == 11) search.queries[3] = kInfinity;  // out of the screen's range: every item is scored
      if (excludes) {
        search.exclude.clear();
        fill_rows(search.exclude_indptr, search.exclude, search, 10 * seed, search.n_items, seed);
      }
      auto& memory = Emulator::memory;
      memory.peak = memory.used.load();
      const cuda::SearchCounts counts = both.ask(search);
      CHECK(counts.replayed == 1 && counts.recorded == 0);
      CHECK((counts.unscreened == 0) == (memory.peak == memory.used));
    }
  }
  search.exclude_indptr.clear();
  search.fusion = recfuse::Fusion::kAverage;
  CHECK(both.ask(search).recorded == 1);
  search.k = 11;
  CHECK(both.ask(search).recorded == 1);
  CHECK(both.ask(search).replayed == 1);
  search.n_queries = 4;
  CHECK(both.ask(search).recorded == 1);
}

TEST(requests_that_are_not_small_are_not_recorded) {
  Search search = gaussian_search(6'000, 65, 8, 3);
  const Both both(search);
  CHECK(both.ask(search).recorded == 0);
  search.n_queries = 8;
  search.k = 1'025;
  CHECK(both.ask(search).recorded == 0);
  search.k = 3;
  CHECK(both.ask(search).recorded == 1);
  fill_rows(search.exclude_indptr, search.exclude, search, 3'500, search.n_items, 3);
  CHECK(search.exclude_indptr.back() > cuda::SmallRequests<Emulator>::kMostExcluded);
  CHECK(both.ask(search).recorded == 0);
}

TEST(fusions_that_are_no_sums_are_screened_and_answer_as_the_cpu_does) {
  constexpr std::int64_t kItems = 1'500, kK = 7;
  const std::vector<std::int64_t> dims{5, 24, 70};
  std::mt19937 generator(8);
  for (const auto& [n_queries, size] : std::vector<std::pair<std::int64_t, float>>{{3, 1.0F}, {70, 1.0F}, {9, 1e14F}}) {
    std::vector<std::vector<float>> items, queries;  // products of the largest are beyond float32, and tie
    for (std::size_t m = 0; m < dims.size(); ++m) {
      const auto seed = static_cast<unsigned>(20 + m);
      items.push_back(gaussian(static_cast<std::size_t>(kItems * dims[m]), seed));
      queries.push_back(gaussian(static_cast<std::size_t>(n_queries * dims[m]), seed + 10));
      // The best of a query differ by less than float16 can tell.
      const std::vector<float> noise = gaussian(static_cast<std::size_t>(400 * dims[m]), seed + 20);
      for (std::size_t i = 0; i < noise.size(); ++i) {
        const std::size_t j = i % static_cast<std::size_t>(dims[m]);
        items[m][static_cast<std::size_t>(1'000 * dims[m]) + i] = items[m][j] + 3e-5F * noise[i];
      }
      std::copy_n(items[m].begin(), dims[m], queries[m].begin() + dims[m]);
      for (float& x : items[m]) x *= size;
      std::fill_n(items[m].begin() + 300 * dims[m], dims[m], 0.0F);
      std::copy_n(items[m].begin(), dims[m], items[m].begin() + 900 * dims[m]);  // a tie
    }
    items[1][24 * 77] = 1e30F;
    std::vector<MatrixView<const float>> x, q;
    for (std::size_t m = 0; m < dims.size(); ++m) {
      x.push_back({items[m].data(), kItems, dims[m]});
      q.push_back({queries[m].data(), n_queries, dims[m]});
    }
    std::vector<std::uint8_t> present(kItems * 3);
    for (auto& flag : present) flag = generator() % 4 != 0;
    std::vector<double> weights;
    for (std::int64_t i = 0; i < n_queries; ++i) {
      const double sign = i % 3 == 0 ? -1 : 1;
      weights.insert(weights.end(), {1.5, sign * 0.25, i % 4 == 0 ? 0.0 : 1e-3});
    }
    for (const auto metric : {recfuse::Metric::kDot, recfuse::Metric::kCosine}) {
      const recfuse::FusedItemsArgs args{.items = x, .present = {present.data(), kItems, 3}, .metric = metric};
      Emulator device;
      const recfuse::FusedIndex on_cpu(args);
      const cuda::FusedSearch<Emulator> index(device, args);
      for (const auto fusion : {recfuse::Fusion::kProduct, recfuse::Fusion::kMax, recfuse::Fusion::kMin}) {
        for (const auto missing : {recfuse::Missing::kRenormalise, recfuse::Missing::kZero}) {
          const recfuse::FuseTopkArgs asked{
              .queries = q, .weights = {weights.data(), n_queries, 3}, .k = kK, .fusion = fusion, .missing = missing};
          std::vector<Search::Answer> answers(2);
          std::vector<recfuse::TopkOut> out;
          for (auto& answer : answers) {
            answer.ids.resize(static_cast<std::size_t>(n_queries * kK));
            answer.scores.resize(answer.ids.size());
            out.push_back({{answer.ids.data(), n_queries, kK}, {answer.scores.data(), n_queries, kK}});
          }
          on_cpu.topk(asked, out[0], {});
          const cuda::SearchCounts counts = index.topk(asked, out[1], {});
          CHECK(answers[0] == answers[1]);
          CHECK(counts.unscreened == 0);
          CHECK(counts.candidates < n_queries * kItems / 3 || size > 1);
        }
      }
    }
  }
}

TEST(threads_that_ask_at_once_have_recordings_of_their_own) {
  const Search search = gaussian_search(1'500, 3, 16, 5);
  const Both both(search);
  const Search::Answer expected = search.ask(both.on_cpu);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 4; ++i) wrong += search.ask(both.index) == expected ? 0 : 1;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST(recordings_that_nobody_uses_make_room) {
  Search search = gaussian_search(1'500, 3, 16, 5);
  const Both both(search);
  const std::size_t before = Emulator::memory.used;
  for (search.k = 1; search.k <= 12; ++search.k) both.ask(search);
  const std::size_t kept = Emulator::memory.used - before;
  search.k = 20;
  search.n_queries = 1;
  both.ask(search);
  CHECK(Emulator::memory.used - before < kept);           // the oldest has gone
  const Search more = gaussian_search(1'500, 20, 16, 5);  // beside `search`, whose items the indexes read
  const Memory little(500'000);
  CHECK(both.ask(more).recorded == 1);
}
