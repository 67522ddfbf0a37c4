// cosine_knn and neighbour_topk as a C++ program uses them: every way to add up, on every instruction set, against
// loops in float64.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "recfuse/recfuse.hpp"
#include "sparse.hpp"

namespace {

using recfuse::CsrView;
using recfuse::Norm;

using recfuse::testing::Csr;
using recfuse::testing::Lists;

/// NaN where nothing is stored.
double value_at(const Csr& csr, std::int64_t row, std::int32_t column) {
  const auto begin = csr.indices.begin() + csr.indptr[static_cast<std::size_t>(row)];
  const auto end = csr.indices.begin() + csr.indptr[static_cast<std::size_t>(row) + 1];
  const auto found = std::lower_bound(begin, end, column);
  if (found == end || *found != column) return std::numeric_limits<double>::quiet_NaN();
  return csr.values[static_cast<std::size_t>(found - csr.indices.begin())];
}

/// About one entry in five, each one of `choices`.
Csr random_csr(std::int64_t rows, std::int64_t cols, const std::vector<float>& choices, unsigned seed) {
  std::mt19937 random(seed);
  return recfuse::testing::random_csr(rows, cols, choices, random, [&](std::int64_t) { return random() % 5 == 0; });
}

/// Sorts by score, then id, and writes the best as row `row`.
void write(std::vector<std::pair<float, std::int32_t>> scored, std::int64_t row, Lists& lists) {
  std::sort(scored.begin(), scored.end(), [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  });
  for (std::int64_t i = 0; i < lists.k; ++i) {
    const auto at = static_cast<std::size_t>(row * lists.k + i), from = static_cast<std::size_t>(i);
    lists.ids[at] = from < scored.size() ? scored[from].second : -1;
    lists.scores[at] = from < scored.size() ? scored[from].first + 0.0F : -std::numeric_limits<float>::infinity();
  }
}

Lists neighbours_by_loops(const Csr& csr, const recfuse::CosineKnnArgs& args) {
  Lists lists(csr.rows(), args.k);
  for (std::int64_t u = 0; u < csr.rows(); ++u) {
    std::vector<std::pair<float, std::int32_t>> scored;
    for (std::int64_t v = 0; v < csr.rows(); ++v) {
      double dot = 0, squared_u = 0, squared_v = 0;
      std::int64_t support = 0;
      for (std::int32_t c = 0; c < csr.cols; ++c) {
        const double a = value_at(csr, u, c), b = value_at(csr, v, c);
        const bool shared = !std::isnan(a) && !std::isnan(b);
        if (shared) dot += a * b;
        if (shared || (args.norm == Norm::kFull && !std::isnan(a))) squared_u += a * a;
        if (shared || (args.norm == Norm::kFull && !std::isnan(b))) squared_v += b * b;
        support += shared;
      }
      if (u == v || support < args.min_support) continue;
      const double norms = std::sqrt(squared_u * squared_v) + args.shrinkage;
      scored.emplace_back(norms == 0 ? 0.0F : static_cast<float>(dot / norms), static_cast<std::int32_t>(v));
    }
    write(std::move(scored), u, lists);
  }
  return lists;
}

const std::vector<std::vector<float>> kChoices{{1},        {1, 2, 5},      {0.5, 1, 4.5}, {0.1F, 1.3F, 2.7F},
                                               {-1, 0, 2}, {1e-38F, 3e38F}};

}  // namespace

TEST(neighbours_are_those_of_the_definition) {
  unsigned seed = 1;
  for (const auto& choices : kChoices) {
    const Csr csr = random_csr(70, 25, choices, ++seed);
    for (const Norm norm : {Norm::kFull, Norm::kCorated}) {
      for (const std::int64_t min_support : {1, 2}) {
        recfuse::CosineKnnArgs args{
            .matrix = csr.view(), .k = 6, .norm = norm, .shrinkage = 0.5, .min_support = min_support};
        const Lists expected = neighbours_by_loops(csr, args);
        for (const auto& isa : recfuse::available_isas()) {
          recfuse::set_isa(isa);
          for (args.num_threads = 1; args.num_threads <= 3; args.num_threads += 2) {
            Lists got(csr.rows(), args.k);
            recfuse::cosine_knn(args, got.out());
            CHECK(got == expected);
          }
        }
      }
    }
  }
}

TEST(the_best_of_a_product_are_those_of_the_definition) {
  for (const bool normalise : {false, true}) {
    const Csr queries = random_csr(20, 30, {0.3F, -1, 2}, 5), matrix = random_csr(30, 2100, {1, 0.7F, -2}, 6);
    const std::vector<std::int32_t> allowed{5, 7, 7, 1500, 2099, 0};
    for (const bool filtered : {false, true}) {
      recfuse::NeighbourTopkArgs args{
          .queries = queries.view(), .neighbours = matrix.view(), .normalise = normalise, .k = 9};
      args.has_allow_ids = filtered;
      if (filtered) args.allow_ids = allowed;
      Lists expected(20, args.k);
      for (std::int64_t q = 0; q < 20; ++q) {
        std::vector<std::pair<float, std::int32_t>> scored;
        for (std::int32_t item = 0; item < matrix.cols; ++item) {
          double sum = 0, weight = 0;
          int terms = 0;
          for (std::int32_t j = 0; j < queries.cols; ++j) {
            const double a = value_at(queries, q, j), b = value_at(matrix, j, item);
            if (std::isnan(a) || std::isnan(b)) continue;
            sum += a * b;
            weight += std::abs(a);
            ++terms;
          }
          if (terms == 0 || (filtered && std::count(allowed.begin(), allowed.end(), item) == 0)) continue;
          scored.emplace_back(static_cast<float>(normalise ? sum / weight : sum), item);
        }
        write(std::move(scored), q, expected);
      }
      for (const auto& isa : recfuse::available_isas()) {
        recfuse::set_isa(isa);
        Lists got(20, args.k);
        recfuse::neighbour_topk(args, got.out());
        CHECK(got == expected);
      }
    }
  }
}

TEST(a_slice_of_a_larger_matrix_is_a_matrix) {
  const Csr csr = random_csr(40, 15, {1, 3}, 9);
  CsrView slice = csr.view();
  slice.indptr += 10;
  slice.rows = 20;
  Csr copy;
  copy.cols = csr.cols;
  for (std::int64_t row = 10; row < 30; ++row) {
    for (std::int64_t e = csr.indptr[static_cast<std::size_t>(row)]; e < csr.indptr[static_cast<std::size_t>(row) + 1];
         ++e) {
      copy.indices.push_back(csr.indices[static_cast<std::size_t>(e)]);
      copy.values.push_back(csr.values[static_cast<std::size_t>(e)]);
    }
    copy.indptr.push_back(static_cast<std::int64_t>(copy.indices.size()));
  }
  Lists a(20, 5), b(20, 5);
  recfuse::cosine_knn({.matrix = slice, .k = 5}, a.out());
  recfuse::cosine_knn({.matrix = copy.view(), .k = 5}, b.out());
  CHECK(a == b);
}

TEST(wrong_arguments_are_named_and_nothing_is_written) {
  const Csr csr = random_csr(5, 4, {1}, 3);
  Lists lists(5, 2), untouched(5, 2);
  const auto message = [&](recfuse::CosineKnnArgs args) {
    return recfuse::testing::thrown_message<std::invalid_argument>([&] { recfuse::cosine_knn(args, lists.out()); });
  };
  CHECK(message({.matrix = csr.view(), .k = 0}) == "cosine_knn: k must be at least 1; got 0");
  CHECK(message({.matrix = csr.view(), .k = 3}) ==
        "cosine_knn: out must have shape (5, 3) twice; got (5, 2) and (5, 2)");
  CHECK(message({.matrix = csr.view(), .k = 2, .min_support = 0}) ==
        "cosine_knn: min_support must be at least 1; got 0");
  CsrView pattern = csr.view();
  pattern.values = nullptr;
  CHECK(message({.matrix = pattern, .k = 2}) == "cosine_knn: matrix must have values; got a pattern");
  CHECK(lists == untouched);
}
