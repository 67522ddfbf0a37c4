// Sparse similarity on every instruction set, against the formula on dense rows.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "recfuse/recfuse.hpp"
#include "sparse.hpp"

namespace {

struct Result {
  std::vector<std::int32_t> ids;
  std::vector<float> scores;
  bool operator==(const Result&) const = default;
};

Result expected(const recfuse::testing::Csr& matrix, const recfuse::CosineKnnArgs& args) {
  const auto x = matrix.dense();
  const auto row = [&](std::int64_t i) { return x.begin() + i * matrix.cols; };
  Result result;
  for (std::int64_t i = 0; i < matrix.rows; ++i) {
    std::vector<std::uint64_t> keys;
    for (std::int64_t j = 0; j < matrix.rows; ++j) {
      double dot = 0, full_i = 0, full_j = 0, shared_i = 0, shared_j = 0;
      std::int64_t support = 0;
      for (std::int64_t c = 0; c < matrix.cols; ++c) {
        const double a = row(i)[c], b = row(j)[c];
        dot += a * b;
        full_i += a * a;
        full_j += b * b;
        if (a == 0 || b == 0) continue;
        ++support;
        shared_i += a * a;
        shared_j += b * b;
      }
      if (i == j || support < args.min_support) continue;
      const bool full = args.norm == recfuse::Norm::kFull;
      const float score = recfuse::cosine(dot, full ? full_i : shared_i, full ? full_j : shared_j, args.shrinkage);
      keys.push_back(recfuse::ranking_key(score, static_cast<std::int32_t>(j)));
    }
    std::sort(keys.rbegin(), keys.rend());
    for (std::size_t n = 0; n < static_cast<std::size_t>(args.k); ++n) {
      result.ids.push_back(n < keys.size() ? recfuse::key_id(keys[n]) : -1);
      result.scores.push_back(n < keys.size() ? recfuse::key_score(keys[n]) : -std::numeric_limits<float>::infinity());
    }
  }
  return result;
}

Result neighbours(const recfuse::CosineKnnArgs& args) {
  const auto n = static_cast<std::size_t>(args.matrix.rows * args.k);
  Result result{std::vector<std::int32_t>(n), std::vector<float>(n)};
  recfuse::cosine_knn(
      args, {{result.ids.data(), args.matrix.rows, args.k}, {result.scores.data(), args.matrix.rows, args.k}});
  return result;
}

}  // namespace

TEST(every_isa_returns_the_formula) {
  const auto before = recfuse::active_isa();
  const recfuse::testing::Csr matrix(90, 70, 6, 20261121);
  for (const auto& isa : recfuse::available_isas()) {
    recfuse::set_isa(isa);
    for (const auto norm : {recfuse::Norm::kFull, recfuse::Norm::kCorated}) {
      for (const std::int64_t k : {1, 10, 120}) {
        for (const int num_threads : {1, 2}) {
          const recfuse::CosineKnnArgs args{.matrix = matrix.view(),
                                            .k = k,
                                            .norm = norm,
                                            .shrinkage = k == 10 ? 3.5 : 0.0,
                                            .min_support = k == 10 ? 2 : 1,
                                            .num_threads = num_threads};
          CHECK(neighbours(args) == expected(matrix, args));
        }
      }
    }
  }
  recfuse::set_isa(before);
}

TEST(wrong_values_throw) {
  const recfuse::testing::Csr matrix(3, 4, 2, 1);
  CHECK_THROWS(std::invalid_argument, "cosine_knn: k must be at least 1; got 0",
               recfuse::cosine_knn({.matrix = matrix.view(), .k = 0}, {}));
}
