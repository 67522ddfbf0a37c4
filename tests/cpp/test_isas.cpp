// Every op returns the same bytes on every instruction set, whatever the widths, tails and screens: small problems, so
// that it can be run where an instruction set is emulated. ALS, which may round differently, is held to float64.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "recfuse/recfuse.hpp"
#include "sparse.hpp"

namespace {

using recfuse::MatrixView;
using recfuse::testing::Csr;
using recfuse::testing::Lists;

using Matrix = std::vector<float>;

MatrixView<const float> view(const Matrix& matrix, std::int64_t columns) {
  return {matrix.data(), static_cast<std::int64_t>(matrix.size()) / columns, columns};
}

Matrix normal(std::int64_t rows, std::int64_t columns, std::mt19937& random) {
  std::normal_distribution<float> draw;
  Matrix matrix(static_cast<std::size_t>(rows * columns));
  for (float& value : matrix) value = draw(random);
  return matrix;
}

Matrix small_numbers(std::int64_t rows, std::int64_t columns, std::mt19937& random) {
  Matrix matrix(static_cast<std::size_t>(rows * columns));
  for (float& value : matrix) value = static_cast<float>(static_cast<int>(random() % 7) - 3);
  return matrix;
}

/// Rows of very different lengths, some of them zero.
Matrix all_sizes(std::int64_t rows, std::int64_t columns, std::mt19937& random) {
  Matrix matrix = normal(rows, columns, random);
  std::normal_distribution<float> draw;
  for (std::int64_t row = 0; row < rows; ++row) {
    const float scale = random() % 16 == 0 ? 0.0F : std::exp(3 * draw(random));
    for (std::int64_t i = 0; i < columns; ++i) matrix[static_cast<std::size_t>(row * columns + i)] *= scale;
  }
  return matrix;
}

/// Rows near 60 others, so that an index finds neighbourhoods.
Matrix clusters(std::int64_t rows, std::int64_t columns, std::mt19937& random) {
  const Matrix centres = normal(60, columns, random);
  Matrix matrix = normal(rows, columns, random);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t centre = random() % 60;
    for (std::int64_t i = 0; i < columns; ++i) {
      float& value = matrix[static_cast<std::size_t>(row * columns + i)];
      value = centres[static_cast<std::size_t>(centre * columns + i)] + 0.3F * value;
    }
  }
  return matrix;
}

constexpr auto kKinds =
    std::to_array<Matrix (*)(std::int64_t, std::int64_t, std::mt19937&)>({normal, small_numbers, all_sizes, clusters});

/// The value of an environment variable while this lives.
class Setting {
 public:
  Setting(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  ~Setting() { unsetenv(name_); }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  const char* name_;
};

/// `answer()` on every instruction set; checks that they equal that of the baseline, and names the one that differs.
template <class Answer>
void check_every_isa(const std::string& what, const Answer& answer) {
  const auto before = recfuse::active_isa();
  recfuse::set_isa("baseline");
  const auto expected = answer();
  for (const auto& isa : recfuse::available_isas()) {
    recfuse::set_isa(isa);
    if (!(answer() == expected)) recfuse::testing::fail(__FILE__, __LINE__, what + " differs on " + isa);
  }
  recfuse::set_isa(before);
}

template <class Has>
Csr random_csr(std::int64_t rows, std::int64_t cols, const std::vector<float>& choices, unsigned seed, const Has& has) {
  std::mt19937 random(seed);
  return recfuse::testing::random_csr(rows, cols, choices, random, [&](std::int64_t row) { return has(row, random); });
}

/// What a search returns, with every screen that the instruction set has; the second call has a kept copy.
std::vector<Lists> searches(const Matrix& items, const Matrix& queries, std::int64_t dim, recfuse::Metric metric) {
  const std::array<MatrixView<const float>, 1> item_views{view(items, dim)}, query_views{view(queries, dim)};
  const std::vector<double> weight{1};
  const Csr excluded =
      random_csr(query_views[0].rows, item_views[0].rows, {1}, 3,
                 [](std::int64_t row, std::mt19937& random) { return random() % (2 + 20 * row) == 0; });
  std::vector<Lists> results;
  for (const char* screen : {"float32", "int8", "int16"}) {
    for (const char* order : {"auto", "norms"}) {
      if (screen == std::string("float32") && order == std::string("norms")) continue;
      const Setting screens("RECFUSE_SCREEN", screen), orders("RECFUSE_SCREEN_ORDER", order);
      const recfuse::FusedIndex index({.items = item_views, .metric = metric, .num_threads = 1});
      std::vector<Lists> lists;
      for (const std::int64_t k : {10, 33, 1}) {
        Lists got(query_views[0].rows, k);
        recfuse::FuseTopkArgs args{.queries = query_views, .weights = {weight.data(), 1, 1}, .k = k, .num_threads = 1};
        if (k != 10) args.exclude = excluded.view();
        index.topk(args, got.out());
        lists.push_back(got);
      }
      if (results.empty()) results = lists;
      if (lists != results) results.clear();  // which differs from any other answer
    }
  }
  CHECK(!results.empty());
  return results;
}

/// Rows of all lengths up to every column.
Csr uneven_csr(std::int64_t rows, std::int64_t cols, const std::vector<float>& choices, unsigned seed) {
  return random_csr(rows, cols, choices, seed, [&](std::int64_t row, std::mt19937& random) {
    return static_cast<std::int64_t>(random() % 1000) * rows < 1000 * (row * 7 % rows);
  });
}

const std::vector<std::vector<float>> kChoices{{1}, {1, 2, 5}, {0.5, 1, 4.5}, {0.1F, 1.3F, 2.7F}, {-1, 0, 2.5F}};

struct Model {
  Matrix users, items;
};

Model step(const Csr& matrix, const recfuse::AlsParams& params) {
  std::mt19937 random(7);
  const std::int64_t f = params.factors;
  Model model{normal(matrix.rows(), f, random), normal(matrix.cols, f, random)};
  recfuse::AlsSolver solver(matrix.view(), params, 1);
  solver.set_factors({.users = {model.users.data(), matrix.rows(), f}, .items = {model.items.data(), matrix.cols, f}});
  solver.step(1);
  solver.factors({.users = {model.users.data(), matrix.rows(), f}, .items = {model.items.data(), matrix.cols, f}});
  return model;
}

/// The largest difference, as a share of the largest value.
double difference(const Matrix& got, const Matrix& expected) {
  double largest = 0, size = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(got[i]) - expected[i]));
    size = std::max(size, std::abs(static_cast<double>(expected[i])));
  }
  return largest / size;
}

void check_close(const Model& got, const Model& expected, double most, const std::string& what) {
  const double worst = std::max(difference(got.users, expected.users), difference(got.items, expected.items));
  if (!(worst < most)) recfuse::testing::fail(__FILE__, __LINE__, what + ": off by " + std::to_string(worst));
}

}  // namespace

TEST(searches_of_every_width) {
  std::size_t kind = 0;
  for (const std::int64_t dim : {1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 129}) {
    for (const auto metric : {recfuse::Metric::kDot, recfuse::Metric::kCosine}) {
      std::mt19937 random(static_cast<unsigned>(dim));
      const auto make = kKinds[kind++ % kKinds.size()];
      const Matrix items = make(1024 + 3 * dim, dim, random), queries = make(19, dim, random);
      check_every_isa("a search of " + std::to_string(dim) + " dimensions",
                      [&] { return searches(items, queries, dim, metric); });
    }
  }
}

TEST(searches_with_neighbourhoods) {
  constexpr std::int64_t kDim = 20;
  for (const auto make : {clusters, small_numbers}) {
    std::mt19937 random(20);
    const Matrix items = make(4400, kDim, random);
    const Matrix queries(items.begin(), items.begin() + 40 * kDim);
    check_every_isa("a search", [&] { return searches(items, queries, kDim, recfuse::Metric::kCosine); });
  }
}

/// An index that is asked for single queries among listed items keeps its rounded rows for that.
TEST(single_queries_with_lists) {
  for (const std::int64_t dim : {5, 16, 63, 64, 65, 130}) {
    std::mt19937 random(static_cast<unsigned>(dim));
    const Matrix items = normal(1500, dim, random), queries = normal(24, dim, random);
    std::vector<std::int32_t> allowed;
    for (std::int32_t i = 0; i < 1500; i += 1 + static_cast<int>(random() % 5)) allowed.push_back(i);
    check_every_isa("a list of " + std::to_string(dim) + " dimensions", [&] {
      const Setting screen("RECFUSE_SCREEN", "int8");
      const std::array<MatrixView<const float>, 1> item_views{view(items, dim)};
      const recfuse::FusedIndex index({.items = item_views, .num_threads = 1});
      const std::vector<double> weight{1};
      std::vector<Lists> results;
      for (std::size_t q = 0; q < 24; ++q) {
        const std::array<MatrixView<const float>, 1> query{{{&queries[q * static_cast<std::size_t>(dim)], 1, dim}}};
        const std::size_t n = allowed.size() - 7 * q;  // lists of every remainder
        Lists got(1, 1 + static_cast<std::int64_t>(q));
        index.topk({.queries = query,
                    .weights = {weight.data(), 1, 1},
                    .k = got.k,
                    .allow_ids = std::span(allowed).first(n),
                    .has_allow_ids = true,
                    .num_threads = 1},
                   got.out());
        results.push_back(got);
      }
      return results;
    });
  }
}

TEST(scores_and_ranks_of_pairs) {
  for (const std::int64_t dim : {1, 9, 16, 40}) {
    std::mt19937 random(static_cast<unsigned>(dim));
    const Matrix items = small_numbers(530, dim, random), queries = small_numbers(21, dim, random);
    const Csr pairs =
        random_csr(21, 530, {1}, 5, [](std::int64_t row, std::mt19937& r) { return r() % (2 + 9 * (row % 3)) == 0; });
    check_every_isa("a rank of " + std::to_string(dim) + " dimensions", [&] {
      const std::array<MatrixView<const float>, 1> item_views{view(items, dim)}, query_views{view(queries, dim)};
      const std::vector<double> weight{1};
      const recfuse::FusedIndex index({.items = item_views, .num_threads = 1});
      const recfuse::FuseTopkArgs args{
          .queries = query_views, .weights = {weight.data(), 1, 1}, .k = 1, .num_threads = 1};
      Matrix scores(pairs.indices.size());
      index.score_pairs(args, pairs.view(), scores);
      std::vector<std::int32_t> rank(pairs.indices.size()), first(rank), last(rank), ranked(21);
      index.rank_pairs(args, pairs.view(), {.rank = rank, .first = first, .last = last, .n_ranked = ranked});
      return std::tuple(scores, rank, first, last, ranked);
    });
  }
}

TEST(neighbours_of_rows_of_every_length) {
  unsigned seed = 1;
  for (const auto& choices : kChoices) {
    for (const std::int64_t rows : {37, 600}) {
      const Csr csr = uneven_csr(rows, rows == 37 ? 90 : 40, choices, ++seed);
      for (const auto norm : {recfuse::Norm::kFull, recfuse::Norm::kCorated}) {
        for (const std::int64_t k : {3, 40}) {
          check_every_isa("a list of neighbours", [&] {
            Lists lists(rows, k);
            recfuse::cosine_knn({.matrix = csr.view(),
                                 .k = k,
                                 .norm = norm,
                                 .shrinkage = k == 3 ? 0.5 : 0.0,
                                 .min_support = k == 3 ? 2 : 1,
                                 .num_threads = 1},
                                lists.out());
            return lists;
          });
        }
      }
    }
  }
}

TEST(products_of_sparse_matrices) {
  unsigned seed = 100;
  for (const auto& choices : kChoices) {
    const Csr left = uneven_csr(30, 50, choices, ++seed), right = uneven_csr(50, 700, choices, ++seed);
    for (const bool normalise : {false, true}) {
      check_every_isa("neighbour_topk", [&] {
        Lists lists(30, 21);
        recfuse::neighbour_topk(
            {.queries = left.view(), .neighbours = right.view(), .normalise = normalise, .k = 21, .num_threads = 1},
            lists.out());
        return lists;
      });
    }
    for (const auto order : {recfuse::ProductOrder::kDescending, recfuse::ProductOrder::kScipy}) {
      for (const auto above : {std::optional<double>(), std::optional<double>(0.75)}) {
        const auto product = [&]<class T>(const std::vector<T>& a, const std::vector<T>& b) {
          const auto got = recfuse::sparse_product_topk<T>({.left = left.view(),
                                                            .right = right.view(),
                                                            .left_values = a,
                                                            .right_values = b,
                                                            .k = 18,
                                                            .above = above,
                                                            .order = order,
                                                            .num_threads = 1});
          return std::tuple(got.indptr, got.indices, got.values);
        };
        const std::vector<double> a(left.values.begin(), left.values.end()),
            b(right.values.begin(), right.values.end());
        check_every_isa("a product in float32", [&] { return product(left.values, right.values); });
        check_every_isa("a product in float64", [&] { return product(a, b); });
      }
    }
  }
}

TEST(nearest_rows_of_every_width) {
  for (const std::int64_t dim : {1, 3, 8, 15, 16, 17, 33, 100}) {
    std::mt19937 random(static_cast<unsigned>(dim));
    const Matrix items = small_numbers(101, dim, random), queries = normal(23, dim, random);
    std::vector<std::int32_t> candidates;
    for (int q = 0; q < 23; ++q) {
      for (int i = 0; i < 37; ++i) candidates.push_back(i % 9 == 8 ? -1 : (q + 5 * i) % 101);
    }
    check_every_isa("a nearest row of " + std::to_string(dim) + " dimensions", [&] {
      Lists lists(23, 12);
      recfuse::nearest_candidates({.queries = view(queries, dim),
                                   .items = view(items, dim),
                                   .candidates = {candidates.data(), 23, 37},
                                   .num_threads = 1},
                                  lists.out());
      return lists;
    });
    for (const auto by : {recfuse::Nearness::kDistance, recfuse::Nearness::kProduct}) {
      check_every_isa("a range of rows of " + std::to_string(dim) + " dimensions", [&] {
        const float limit = by == recfuse::Nearness::kDistance ? 4.0F * static_cast<float>(dim) : 0.5F;
        const auto got = recfuse::rows_in_range(
            {.queries = view(queries, dim), .items = view(items, dim), .by = by, .limit = limit, .num_threads = 1});
        return std::tuple(got.indptr, got.ids, got.values);
      });
    }
  }
}

TEST(als_of_every_width) {
  const auto before = recfuse::active_isa();
  const Csr matrix = uneven_csr(40, 37, {1, 2, 5}, 11);
  std::vector<std::int64_t> widths{48, 49, 64, 65, 96, 100, 128, 130};
  for (std::int64_t factors = 1; factors < 34; ++factors) widths.push_back(factors);
  for (const std::int64_t factors : widths) {
    recfuse::AlsParams exactly{.factors = factors, .regularization = 3, .cg_steps = 3 * factors + 10};
    exactly.solver = recfuse::LinearSolver::kCholesky;
    recfuse::AlsParams by_steps = exactly, by_entries = exactly, subtracted = exactly;
    by_steps.solver = recfuse::LinearSolver::kCg;
    by_entries.dual_entries = matrix.cols + matrix.rows();
    subtracted.base_confidence = 0;  // entries of 1 weigh less than what is not stored
    subtracted.alpha = 0.4;
    recfuse::AlsParams subtracted_by_steps = subtracted;
    subtracted_by_steps.solver = recfuse::LinearSolver::kCg;
    for (const auto& params : {exactly, by_steps, by_entries, subtracted, subtracted_by_steps}) {
      recfuse::AlsParams reference = params;
      reference.solver = recfuse::LinearSolver::kCholesky;
      reference.double_precision = true;
      recfuse::set_isa("baseline");
      const Model expected = step(matrix, reference);
      for (const auto& isa : recfuse::available_isas()) {
        recfuse::set_isa(isa);
        check_close(step(matrix, params), expected, 1e-4, std::to_string(factors) + " factors on " + isa);
      }
    }
  }
  recfuse::set_isa(before);
}

// What stops early has no reference in float64: the baseline's steps are one. Few steps read factors of 8 bits, of
// which the lower half of a pair is the nearest that the upper half allows, and the pairs lie as far apart as registers
// are wide.
TEST(als_of_few_steps_and_of_blocks) {
  const auto before = recfuse::active_isa();
  const Csr matrix = uneven_csr(60, 45, {1, 2, 5}, 12);
  for (const std::int64_t factors : {8, 33, 64, 65, 100, 128, 130}) {
    for (const auto solver : {recfuse::LinearSolver::kCg, recfuse::LinearSolver::kBlock}) {
      const recfuse::AlsParams params{.solver = solver, .factors = factors, .regularization = 3};
      recfuse::set_isa("baseline");
      const Model expected = step(matrix, params);
      for (const auto& isa : recfuse::available_isas()) {
        recfuse::set_isa(isa);
        check_close(step(matrix, params), expected, solver == recfuse::LinearSolver::kCg ? 0.05 : 1e-3,
                    std::to_string(factors) + " factors on " + isa);
      }
    }
  }
  recfuse::set_isa(before);
}
