// Threads of a call, and calls of several threads at once: as many bytes as one thread writes, and nothing for
// ThreadSanitizer to say (tools/sanitize.sh).
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "check.hpp"
#include "recfuse/nearest_rows.hpp"
#include "recfuse/recfuse.hpp"
#include "recfuse/sparse_product.hpp"
#include "sparse.hpp"

namespace {

using recfuse::MatrixView;
using recfuse::testing::Csr;
using recfuse::testing::Lists;

/// Calls `body(i)` for every i below n, each on a thread of its own.
void at_once(int n, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < n; ++i) threads.emplace_back(body, i);
  for (std::thread& thread : threads) thread.join();
}

struct Matrix {
  std::vector<float> values;
  std::int64_t rows, cols;

  MatrixView<const float> view() const { return {values.data(), rows, cols}; }
  MatrixView<const float> head(std::int64_t n) const { return {values.data(), n, cols}; }
};

/// Rows around a few centres.
Matrix clusters(std::int64_t rows, std::int64_t cols, unsigned seed) {
  constexpr std::int64_t kCentres = 40;
  std::mt19937 random(seed);
  const auto uniform = [&] { return static_cast<float>(random() % 2001) / 1000 - 1; };
  std::vector<float> centres(static_cast<std::size_t>(kCentres * cols));
  std::generate(centres.begin(), centres.end(), uniform);
  Matrix matrix{{}, rows, cols};
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* const centre =
        &centres[static_cast<std::size_t>(static_cast<std::int64_t>(random() % kCentres) * cols)];
    for (std::int64_t j = 0; j < cols; ++j) matrix.values.push_back(centre[j] + 0.3F * uniform());
  }
  return matrix;
}

/// About one entry in `one_in`.
Csr random_csr(std::int64_t rows, std::int64_t cols, unsigned one_in, const std::vector<float>& choices,
               unsigned seed) {
  std::mt19937 random(seed);
  return recfuse::testing::random_csr(rows, cols, choices, random,
                                      [&](std::int64_t) { return random() % one_in == 0; });
}

struct EveryIsa {
  std::string before = recfuse::active_isa();
  ~EveryIsa() { recfuse::set_isa(before); }

  void run(const std::function<void()>& body) const {
    for (const auto& isa : recfuse::available_isas()) {
      recfuse::set_isa(isa);
      body();
    }
  }
};

}  // namespace

TEST(an_index_rounds_its_items_and_finds_neighbourhoods_while_others_search) {
  constexpr std::int64_t kRows = 4400, kK = 7;
  const Matrix items = clusters(kRows, 20, 1);
  const std::array<MatrixView<const float>, 1> of_items{items.view()};
  const double one = 1;
  std::vector<std::int32_t> few(40);
  for (std::size_t i = 0; i < few.size(); ++i) few[i] = static_cast<std::int32_t>(100 * i);
  const auto search = [&](const recfuse::FusedIndex& index, std::int64_t n, bool listed) {
    const std::array<MatrixView<const float>, 1> queries{items.head(n)};
    Lists lists(n, kK);
    recfuse::FuseTopkArgs args{.queries = queries, .weights = {&one, 1, 1}, .k = kK, .num_threads = 2};
    args.has_allow_ids = listed;
    if (listed) args.allow_ids = few;
    index.topk(args, lists.out());
    return lists;
  };
  const EveryIsa isas;
  for (const std::int64_t n : {100, 280}) {  // int8 is tried for 280 at once, and found too coarse
    recfuse::set_isa("baseline");            // in float32
    const recfuse::FusedIndex plain({.items = of_items});
    const Lists many = search(plain, n, false), single = search(plain, 1, false), listed = search(plain, 1, true);
    isas.run([&] {
      const recfuse::FusedIndex index({.items = of_items, .num_threads = 2});
      CHECK(search(index, n, false) == many);  // nothing is kept of a first call
      at_once(4, [&](int i) {
        for (int call = 0; call < 10; ++call) {
          if (i == 3) {
            CHECK(search(index, 1, true) == listed);
          } else {
            CHECK(search(index, i == 2 ? 1 : n, false) == (i == 2 ? single : many));
          }
          CHECK(index.plan().item_bytes == 4 * kRows * 20);
        }
      });
      // From the sixteenth single query with a list on, rows are kept.
      at_once(2, [&](int) {
        for (int call = 0; call < 10; ++call) CHECK(search(index, 1, true) == listed);
      });
      const auto plan = index.plan();
      if (plan.screen != "float32") CHECK(plan.order == (n == 100 ? "neighbourhoods" : "ids"));
    });
  }
}

TEST(factors_are_those_of_one_thread) {
  const Csr matrix = random_csr(700, 400, 12, {1, 2, 5}, 2);
  const auto fit = [&](recfuse::AlsParams params, int num_threads) {
    params.factors = 33;
    std::mt19937 random(7);
    Matrix users{std::vector<float>(700 * 33), 700, 33}, items{std::vector<float>(400 * 33), 400, 33};
    for (auto* values : {&users.values, &items.values}) {
      for (float& value : *values) value = static_cast<float>(random() % 1000) / 10000.0F - 0.05F;
    }
    recfuse::AlsSolver solver(matrix.view(), params, num_threads);
    solver.set_factors({.users = users.view(), .items = items.view()});
    for (int i = 0; i < 2; ++i) solver.step(num_threads);
    const MatrixView<float> out_users{users.values.data(), 700, 33}, out_items{items.values.data(), 400, 33};
    solver.factors({.users = out_users, .items = out_items});
    if (num_threads > 1) {
      at_once(2, [&](int) {
        Matrix folded{std::vector<float>(700 * 33), 700, 33};
        solver.fold_in(matrix.view(), {folded.values.data(), 700, 33}, {}, num_threads);
        CHECK(solver.loss(num_threads) > 0);
      });
    }
    users.values.insert(users.values.end(), items.values.begin(), items.values.end());
    return users.values;
  };
  const EveryIsa isas;
  isas.run([&] {
    for (const auto solver :
         {recfuse::LinearSolver::kCholesky, recfuse::LinearSolver::kCg, recfuse::LinearSolver::kBlock}) {
      for (const auto objective : {recfuse::AlsObjective::kImplicit, recfuse::AlsObjective::kExplicit}) {
        for (const double scaling : {0.0, 0.5}) {  // one penalty: coordinates of a triangle; several: eigenvectors
          const recfuse::AlsParams params{
              .objective = objective, .solver = solver, .regularization = 0.5, .frequency_scaling = scaling};
          CHECK(fit(params, 1) == fit(params, 2));
        }
      }
    }
  });
}

TEST(sparse_products_are_those_of_one_thread) {
  const Csr left = random_csr(600, 300, 8, {1, -2, 0.3F}, 3), right = random_csr(300, 500, 9, {1, 0.7F, -1}, 4);
  const std::vector<double> left_values(left.values.begin(), left.values.end());
  const std::vector<double> right_values(right.values.begin(), right.values.end());
  const auto multiply = [&]<class T>(const std::vector<T>& a, const std::vector<T>& b, int num_threads,
                                     recfuse::ProductOrder order) {
    return recfuse::sparse_product_topk<T>({.left = left.view(),
                                            .right = right.view(),
                                            .left_values = a,
                                            .right_values = b,
                                            .k = 6,
                                            .above = 0.5,
                                            .order = order,
                                            .num_threads = num_threads});
  };
  const auto check = [&](const auto& a, const auto& b) {
    for (const auto order : {recfuse::ProductOrder::kDescending, recfuse::ProductOrder::kScipy}) {
      const auto expected = multiply(a, b, 1, order);
      CHECK(expected.indices.size() > 2000);
      at_once(2, [&](int) {
        const auto got = multiply(a, b, 2, order);
        CHECK(got.indptr == expected.indptr && got.indices == expected.indices && got.values == expected.values);
      });
    }
  };
  const EveryIsa isas;
  isas.run([&] {
    check(left.values, right.values);
    check(left_values, right_values);
  });
}

TEST(rows_near_others_are_those_of_one_thread) {
  const Matrix queries = clusters(300, 24, 5), items = clusters(3000, 24, 5);
  std::vector<std::int32_t> candidates;
  for (std::int32_t q = 0; q < 300; ++q) {
    for (std::int32_t j = 0; j < 30; ++j) candidates.push_back(j % 9 == 8 ? -1 : (q * 31 + j * 97) % 3000);
  }
  const auto in_range = [&](recfuse::Nearness by, int num_threads) {
    return recfuse::rows_in_range(
        {.queries = queries.view(), .items = items.view(), .by = by, .limit = 3, .num_threads = num_threads});
  };
  const auto nearest = [&](int num_threads) {
    Lists lists(300, 5);
    recfuse::nearest_candidates({.queries = queries.view(),
                                 .items = items.view(),
                                 .candidates = {candidates.data(), 300, 30},
                                 .num_threads = num_threads},
                                lists.out());
    return lists;
  };
  const EveryIsa isas;
  isas.run([&] {
    for (const auto by : {recfuse::Nearness::kDistance, recfuse::Nearness::kProduct}) {
      const auto expected = in_range(by, 1);
      CHECK(expected.ids.size() > 1000);
      at_once(2, [&](int) {
        const auto got = in_range(by, 2);
        CHECK(got.indptr == expected.indptr && got.ids == expected.ids && got.values == expected.values);
      });
    }
    const Lists expected = nearest(1);
    at_once(2, [&](int) { CHECK(nearest(2) == expected); });
  });
}

TEST(neighbours_are_those_of_one_thread) {
  const EveryIsa isas;
  isas.run([&] {
    for (const auto& choices : {std::vector<float>{1}, std::vector<float>{1, 2, 5}, std::vector<float>{0.1F, 1.3F}}) {
      const Csr csr = random_csr(900, 300, 9, choices, 6);
      for (const auto norm : {recfuse::Norm::kFull, recfuse::Norm::kCorated}) {
        const auto fit = [&](int num_threads) {
          Lists lists(900, 8);
          recfuse::cosine_knn({.matrix = csr.view(), .k = 8, .norm = norm, .num_threads = num_threads}, lists.out());
          return lists;
        };
        const Lists expected = fit(1);
        at_once(2, [&](int) { CHECK(fit(2) == expected); });
      }
    }
  });
}

TEST(lists_of_neighbours_are_those_of_one_thread) {
  // So many histories that the ids of the lists are given numbers.
  const Csr histories = random_csr(900, 300, 9, {1, 2}, 7), neighbours = random_csr(300, 300, 12, {0.4F, 0.9F}, 8);
  CHECK(histories.view().nnz() >= 16 * neighbours.rows());
  const auto search = [&](int num_threads) {
    Lists lists(900, 8);
    recfuse::neighbour_topk({.queries = histories.view(),
                             .neighbours = neighbours.view(),
                             .exclude = histories.view(),
                             .k = 8,
                             .num_threads = num_threads},
                            lists.out());
    return lists;
  };
  const EveryIsa isas;
  isas.run([&] {
    const Lists expected = search(1);
    at_once(2, [&](int) { CHECK(search(2) == expected); });
    const recfuse::NeighbourScorer scorer(neighbours.view());
    at_once(3, [&](int) {
      for (std::int64_t user = 0; user < 200; ++user) {
        recfuse::CsrView history = histories.view();
        history.indptr += user;
        history.rows = 1;
        Lists list(1, 8);
        scorer.topk(history, {history.row_indices(0), static_cast<std::size_t>(history.row_size(0))}, list.out());
        const auto first = static_cast<std::ptrdiff_t>(8 * user);
        CHECK(std::equal(list.ids.begin(), list.ids.end(), expected.ids.begin() + first));
        CHECK(std::equal(list.scores.begin(), list.scores.end(), expected.scores.begin() + first));
      }
    });
  });
}
