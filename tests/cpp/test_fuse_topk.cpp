// FusedIndex as a C++ program uses it: on every instruction set against the formulas, and its messages.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "ops/search.hpp"
#include "recfuse/recfuse.hpp"

namespace {

using recfuse::Fusion;
using recfuse::MatrixView;
using recfuse::Metric;
using recfuse::Missing;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Two modalities, with gaps, and queries for them; small whole numbers, so that scores tie.
struct Problem {
  static constexpr int kModalities = 2;
  static constexpr std::array<std::int64_t, kModalities> kDims{5, 19};
  std::int64_t n_queries, n_items;
  std::array<std::vector<float>, kModalities> queries, items;
  std::vector<std::uint8_t> present;
  std::vector<double> weights;

  Problem(std::int64_t q, std::int64_t n, unsigned seed) : n_queries(q), n_items(n) {
    std::mt19937 random(seed);
    const auto small = [&] { return static_cast<float>(static_cast<int>(random() % 7) - 3); };
    for (std::size_t m = 0; m < kModalities; ++m) {
      queries[m].resize(static_cast<std::size_t>(q * kDims[m]));
      items[m].resize(static_cast<std::size_t>(n * kDims[m]));
      std::generate(queries[m].begin(), queries[m].end(), small);
      std::generate(items[m].begin(), items[m].end(), small);
    }
    for (std::int64_t i = 0; i < n * kModalities; ++i) present.push_back(random() % 4 != 0);
    for (std::int64_t i = 0; i < q * kModalities; ++i) weights.push_back(static_cast<double>(random() % 5) + 0.5);
  }

  std::array<MatrixView<const float>, kModalities> item_views() const {
    return {{{items[0].data(), n_items, kDims[0]}, {items[1].data(), n_items, kDims[1]}}};
  }
  std::array<MatrixView<const float>, kModalities> query_views() const {
    return {{{queries[0].data(), n_queries, kDims[0]}, {queries[1].data(), n_queries, kDims[1]}}};
  }

  /// Float64, one item at a time; NaN where the item is not ranked.
  float score(Metric metric, Fusion fusion, Missing missing, std::int64_t q, std::int64_t i) const {
    std::array<double, kModalities> s{};
    std::array<char, kModalities> here{};
    const double* w = &weights[static_cast<std::size_t>(q * kModalities)];
    for (std::size_t m = 0; m < kModalities; ++m) {
      const float* a = &queries[m][static_cast<std::size_t>(q * kDims[m])];
      const float* b = &items[m][static_cast<std::size_t>(i * kDims[m])];
      here[m] = static_cast<char>(present[static_cast<std::size_t>(i * kModalities) + m]);
      s[m] = recfuse::canonical_dot(a, b, kDims[m]);
      if (metric == Metric::kCosine) {
        s[m] *= recfuse::inverse_norm(recfuse::canonical_dot(a, a, kDims[m])) *
                recfuse::inverse_norm(recfuse::canonical_dot(b, b, kDims[m]));
      }
    }
    const double factor = recfuse::presence_factor(fusion, missing, w, here.data(), kModalities);
    if (factor == 0) return NAN;
    return static_cast<float>(
        recfuse::fuse_terms(fusion, missing, w, s.data(), here.data(), factor, kModalities, nullptr));
  }
};

struct Result {
  std::vector<std::int32_t> ids;
  std::vector<float> scores;
  bool operator==(const Result&) const = default;
};

Result expected(const Problem& p, Metric metric, Fusion fusion, Missing missing, std::int64_t k) {
  Result result;
  for (std::int64_t q = 0; q < p.n_queries; ++q) {
    std::vector<std::uint64_t> keys;
    for (std::int64_t i = 0; i < p.n_items; ++i) {
      const auto key = recfuse::ranking_key(p.score(metric, fusion, missing, q, i), static_cast<std::int32_t>(i));
      if (key != 0) keys.push_back(key);
    }
    std::sort(keys.rbegin(), keys.rend());
    for (std::size_t j = 0; j < static_cast<std::size_t>(k); ++j) {
      result.ids.push_back(j < keys.size() ? recfuse::key_id(keys[j]) : -1);
      result.scores.push_back(j < keys.size() ? recfuse::key_score(keys[j]) : -kInfinity);
    }
  }
  return result;
}

struct Output {
  Result result;
  recfuse::TopkOut views;
  Output(std::int64_t rows, std::int64_t k)
      : result{std::vector<std::int32_t>(static_cast<std::size_t>(rows * k)),
               std::vector<float>(static_cast<std::size_t>(rows * k))},
        views{{result.ids.data(), rows, k}, {result.scores.data(), rows, k}} {}
};

/// A small call that is in order; each test of a message puts one thing wrong.
struct Call {
  std::vector<float> items{1, 0, 0, 1, 1, 1}, query{2, 1};
  std::vector<double> weights{1};
  std::array<MatrixView<const float>, 1> item_views{{{items.data(), 3, 2}}}, query_views{{{query.data(), 1, 2}}};
  recfuse::FusedItemsArgs index{.items = item_views, .metric = Metric::kDot};
  recfuse::FuseTopkArgs args{.queries = query_views, .weights = {weights.data(), 1, 1}, .k = 2};
  Output out{1, 2};
  void run() { recfuse::FusedIndex(index).topk(args, out.views); }
};

}  // namespace

TEST(every_isa_returns_the_formula) {
  const auto before = recfuse::active_isa();
  for (const auto& isa : recfuse::available_isas()) {
    recfuse::set_isa(isa);
    CHECK(recfuse::active_isa() == isa);
    for (const auto& [n_queries, n_items] : {std::pair{1, 300}, std::pair{40, 700}}) {
      const Problem p(n_queries, n_items, 20261121);
      const auto items = p.item_views(), queries = p.query_views();
      for (const Metric metric : {Metric::kDot, Metric::kCosine}) {
        const recfuse::FusedIndex index(
            {.items = items, .present = {p.present.data(), n_items, Problem::kModalities}, .metric = metric});
        for (const Fusion fusion : {Fusion::kSum, Fusion::kAverage, Fusion::kProduct, Fusion::kMax, Fusion::kMin}) {
          for (const Missing missing : {Missing::kRenormalise, Missing::kZero}) {
            for (const std::int64_t k : {1, 20, 800}) {
              for (const int num_threads : {1, 2}) {
                Output out(n_queries, k);
                index.topk({.queries = queries,
                            .weights = {p.weights.data(), n_queries, Problem::kModalities},
                            .k = k,
                            .fusion = fusion,
                            .missing = missing,
                            .num_threads = num_threads},
                           out.views);
                CHECK(out.result == expected(p, metric, fusion, missing, k));
              }
            }
          }
        }
      }
    }
  }
  recfuse::set_isa(before);
}

TEST(a_row_slice_of_a_larger_csr_excludes) {
  Call call;
  const std::vector<std::int64_t> indptr{2, 3};  // starts above zero
  const std::vector<std::int32_t> indices{0, 1, 2};
  call.args.exclude = {indptr.data(), indices.data(), nullptr, 1, 3};
  call.run();
  CHECK((call.out.result == Result{{0, 1}, {2, 1}}));
}

TEST(blocks_of_queries_are_even) {
  constexpr int kPanel = 14;
  constexpr std::int64_t kRoom = 100;
  for (const int workers : {1, 2, 3, 16}) {
    for (std::int64_t n = 1; n < 1500; n += n < 100 ? 1 : 37) {
      const auto cut = recfuse::cut_search(5, 5 + n, workers, kPanel, kRoom, false);
      CHECK(static_cast<std::int64_t>(cut.blocks.size()) == cut.n_blocks + 1);
      CHECK(cut.blocks.front() == 5 && cut.blocks.back() == 5 + n);
      const std::int64_t first = cut.blocks[1] - cut.blocks[0];
      for (std::size_t b = 1; b < cut.blocks.size(); ++b) {
        const std::int64_t size = cut.blocks[b] - cut.blocks[b - 1];
        CHECK(0 < size && size <= first && first <= size + 1);
      }
      // No worker is left out where every one has a panel.
      CHECK(cut.by_queries == (n >= workers * kPanel));
      CHECK(!cut.by_queries || cut.n_blocks % workers == 0);
    }
  }
}

TEST(an_index_can_be_moved) {
  Call call;
  recfuse::FusedIndex index(call.index);
  const recfuse::FusedIndex moved = std::move(index);
  moved.topk(call.args, call.out.views);
  CHECK((call.out.result == Result{{2, 0}, {3, 2}}));
  CHECK(moved.n_items() == 3 && moved.n_modalities() == 1);
}

TEST(wrong_values_throw_and_write_nothing) {
  const auto rejects = [](const char* message, auto&& change) {
    Call call;
    change(call);
    const Result before = call.out.result;
    const std::string got = recfuse::testing::thrown_message<std::invalid_argument>([&] { call.run(); });
    if (got != message)
      recfuse::testing::fail(__FILE__, __LINE__, "expected '" + std::string(message) + "'; got '" + got + "'");
    CHECK(call.out.result == before);
  };
  rejects("fuse_topk: k must be at least 1; got 0", [](Call& c) { c.args.k = 0; });
  rejects("fuse_topk: num_threads must be at least 0; got -1", [](Call& c) { c.args.num_threads = -1; });
  rejects("fuse_topk: items must have at least 1 modality; got 0", [](Call& c) { c.index.items = {}; });
  rejects("fuse_topk: queries must have 1 modalities like items; got 0", [](Call& c) { c.args.queries = {}; });
  rejects("fuse_topk: queries must have 2 columns like items; got 1", [](Call& c) { c.query_views[0].cols = 1; });
  rejects("fuse_topk: weights must be finite; got nan for query 0", [](Call& c) { c.weights[0] = NAN; });
  rejects("fuse_topk: weights must not all be 0; got only zeros for query 0", [](Call& c) { c.weights[0] = 0; });
  rejects("fuse_topk: out must have shape (1, 3) twice; got (1, 2) and (1, 2)", [](Call& c) { c.args.k = 3; });
  rejects("fuse_topk: present must have shape (3, 1) (items, modalities); got (2, 1)", [](Call& c) {
    static const std::uint8_t ones[2] = {1, 1};
    c.index.present = {ones, 2, 1};
  });
  rejects("fuse_topk: exclude must have ascending column indices without repeats; got 1 after 2 in row 0", [](Call& c) {
    static const std::int64_t indptr[2] = {0, 2};
    static const std::int32_t indices[2] = {2, 1};
    c.args.exclude = {indptr, indices, nullptr, 1, 3};
  });
}

TEST(ids_out_of_range_and_unknown_names) {
  Call call;
  const std::vector<std::int32_t> ids{0, 3};
  call.args.allow_ids = ids;
  call.args.has_allow_ids = true;
  CHECK_THROWS(std::out_of_range, "fuse_topk: allow[1] must be in [0, 3); got 3", call.run());
  CHECK_THROWS(std::invalid_argument, "fuse_topk: metric must be one of 'dot', 'cosine'; got 'l2'",
               recfuse::metric_named("l2"));
  CHECK_THROWS(std::invalid_argument, "topk: metric must be one of 'dot', 'cosine'; got 'l2'",
               recfuse::metric_named("l2", "topk"));
  const std::string got = recfuse::testing::thrown_message<std::invalid_argument>([] { recfuse::set_isa("mmx"); });
  CHECK(got.starts_with("set_isa: name must be one of those that this CPU runs ("));
  CHECK(got.ends_with("baseline); got 'mmx'"));
}
