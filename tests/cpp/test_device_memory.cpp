// How given pairs are cut: every pair once, in order, and no more than may be there at a time.
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "recfuse/device_memory.hpp"

namespace {

using recfuse::CsrView;
using recfuse::ItemSizes;
using recfuse::PairRun;
using recfuse::SearchLimits;

/// Rows of so many entries.
struct Pattern {
  std::vector<std::int64_t> indptr{5};  // a slice of more
  std::vector<std::int32_t> indices = std::vector<std::int32_t>(1'000);

  explicit Pattern(const std::vector<std::int64_t>& sizes) {
    for (const std::int64_t size : sizes) indptr.push_back(indptr.back() + size);
  }
  CsrView view() const {
    return {indptr.data(), indices.data(), nullptr, static_cast<std::int64_t>(indptr.size()) - 1, 1'000};
  }
};

const ItemSizes kSizes{.n_items = 1'000, .dim = 3, .n_modalities = 1};  // a query is 12 + 24 bytes
const recfuse::ItemPlan kResident{.block_items = 1'000};

/// As (first query, last query, first pair, last pair).
using Runs = std::vector<std::vector<std::int64_t>>;
Runs listed(const std::vector<PairRun>& runs) {
  Runs list;
  for (const PairRun& run : runs) list.push_back({run.first_query, run.last_query, run.first, run.last});
  return list;
}
Runs of_pairs(const std::vector<std::int64_t>& sizes, std::int64_t bytes, std::int64_t terms = 0) {
  return listed(runs_of_pairs(kSizes, kResident, {.pairs_bytes = bytes}, Pattern(sizes).view(), terms));
}

}  // namespace

TEST(pairs_are_scored_in_runs_that_fit) {
  CHECK(of_pairs({2, 0, 3, 1}, 1'000) == (Runs{{0, 4, 0, 6}}));
  // A pair is 16 bytes: 104 have room for a query and four of its pairs.
  CHECK(of_pairs({9, 1, 0, 0, 1}, 104) == (Runs{{0, 1, 0, 4}, {0, 1, 4, 8}, {0, 2, 8, 10}, {4, 5, 10, 11}}));
  CHECK(of_pairs({9}, 100, 8) == (Runs{{0, 1, 0, 2}, {0, 1, 2, 4}, {0, 1, 4, 6}, {0, 1, 6, 8}, {0, 1, 8, 9}}));
  CHECK(of_pairs({2, 1}, 0) == (Runs{{0, 1, 0, 1}, {0, 1, 1, 2}, {1, 2, 2, 3}}));  // one at least
  CHECK(of_pairs({0, 0}, 100).empty() && of_pairs({}, 100).empty());
}

TEST(queries_are_counted_in_runs_that_fit) {
  const Pattern pairs({9, 0, 1, 2, 2}), excluded({0, 25, 0, 0, 25});
  const auto runs = [&](std::int64_t bytes, std::int64_t most, const CsrView& exclude) {
    return listed(runs_of_queries(kResident, {.pairs_bytes = bytes}, pairs.view(), exclude, most));
  };
  CHECK(runs(1'000, 9, {}) == (Runs{{0, 5, 0, 14}}));
  CHECK(runs(1'000, 2, {}) == (Runs{{0, 2, 0, 9}, {2, 4, 9, 12}, {4, 5, 12, 14}}));
  CHECK(runs(100, 9, {}) == (Runs{{0, 1, 0, 9}, {1, 4, 9, 12}, {4, 5, 12, 14}}));  // the first needs 216, and has them
  CHECK(runs(148, 9, excluded.view()) == (Runs{{0, 1, 0, 9}, {1, 3, 9, 10}, {3, 4, 10, 12}, {4, 5, 12, 14}}));
  recfuse::ItemPlan streamed = kResident;
  streamed.search_bytes = 400;  // a quarter of it
  CHECK(runs_of_queries(streamed, {}, pairs.view(), {}, 9).size() == 3);
}

TEST(a_plan_of_pairs_takes_what_may_be_there_and_no_more) {
  const auto bytes_of = [](const recfuse::DevicePlan& plan, const char* name) {
    std::int64_t n = 0;
    for (const auto& buffer : plan.buffers) n += buffer.name == name ? buffer.n_bytes : 0;
    return n;
  };
  const SearchLimits limits{.pairs_bytes = 100'000};
  const auto few = recfuse::plan_rank_pairs(kSizes, limits, recfuse::kUnlimitedBytes, {10, 50, 20});
  CHECK(few.queries == 10 && few.scored == 10);
  CHECK(bytes_of(few, "pairs") == 50 * 16 && bytes_of(few, "pairs and their counts") == 50 * 24);
  CHECK(bytes_of(few, "excluded items") == 20 * 4 + 8 * 10);
  const auto many = recfuse::plan_rank_pairs(kSizes, limits, recfuse::kUnlimitedBytes, {10'000, 1'000'000, 0});
  CHECK(many.scored == 100'000 / (100 * 16 + 36) && many.queries == 100'000 / 2'400);
  const auto one = recfuse::plan_rank_pairs(kSizes, limits, recfuse::kUnlimitedBytes, {1, 1'000'000, 0});
  CHECK(bytes_of(one, "pairs") == 100'000);
}
