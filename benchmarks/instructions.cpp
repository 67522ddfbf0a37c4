// One small call of each kernel, for benchmarks/instructions.py to count the instructions of.
//
//   instructions              names the cases, a line each, after a line with the compiler
//   instructions CASE         runs one
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "recfuse/recfuse.hpp"

/// What is counted: instructions from here to the return. C, so that its name is what valgrind is told; with something
/// to do after the call, or that would be a jump and the return another function's.
extern "C" [[gnu::noinline]] void recfuse_measured(const std::function<void()>& body) {
  body();
  asm volatile("" ::: "memory");
}

namespace {

using recfuse::CsrView;
using recfuse::MatrixView;

/// The compiler does not see which function it is, so it makes no copies of it under other names.
void (*volatile const measure)(const std::function<void()>&) = recfuse_measured;

/// The same numbers everywhere, unlike std::normal_distribution.
class Random {
 public:
  std::uint32_t bits() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::uint32_t>(state_ >> 33);
  }
  std::int64_t below(std::int64_t n) { return bits() % n; }
  float centred() { return static_cast<float>(bits()) * 0x1p-31F - 0.5F; }

 private:
  std::uint64_t state_ = 20261121;
};

std::vector<float> random_matrix(Random& random, std::int64_t size) {
  std::vector<float> matrix(static_cast<std::size_t>(size));
  for (float& x : matrix) x = random.centred();
  return matrix;
}

struct Lists {
  std::vector<std::int32_t> ids;
  std::vector<float> scores;
  recfuse::TopkOut out;

  Lists(std::int64_t rows, std::int64_t k)
      : ids(static_cast<std::size_t>(rows * k)),
        scores(ids.size()),
        out{{ids.data(), rows, k}, {scores.data(), rows, k}} {}
};

/// Columns by falling popularity, rows of several lengths; `values` up to this, from 1.
struct Sparse {
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<float> values;
  std::int64_t cols;

  Sparse(std::int64_t rows, std::int64_t n_cols, std::int64_t largest_row, std::int64_t largest_value, float unit)
      : cols(n_cols) {
    Random random;
    for (std::int64_t row = 0; row < rows; ++row) {
      std::int64_t column = random.below(cols / 8);
      for (std::int64_t j = random.below(largest_row) + 4; j > 0; --j) {
        column += 1 + random.below(1 + column / 4);
        if (column >= cols) break;
        indices.push_back(static_cast<std::int32_t>(column));
        values.push_back(static_cast<float>(1 + random.below(largest_value)) * unit);
      }
      indptr.push_back(static_cast<std::int64_t>(indices.size()));
    }
  }
  CsrView view() const {
    return {indptr.data(), indices.data(), values.data(), static_cast<std::int64_t>(indptr.size()) - 1, cols};
  }
};

void search(const std::vector<std::int64_t>& dims, std::int64_t n_queries, std::int64_t n_items, std::int64_t k) {
  Random random;
  std::vector<std::vector<float>> storage;
  std::vector<MatrixView<const float>> items, queries;
  for (const std::int64_t dim : dims) {
    storage.push_back(random_matrix(random, n_items * dim));
    items.emplace_back(storage.back().data(), n_items, dim);
    storage.push_back(random_matrix(random, n_queries * dim));
    queries.emplace_back(storage.back().data(), n_queries, dim);
  }
  const auto n_modalities = static_cast<std::int64_t>(dims.size());
  std::vector<double> weights;
  for (std::int64_t m = 0; m < n_modalities; ++m) weights.push_back(1.0 / static_cast<double>(m + 1));
  std::vector<std::uint8_t> present(static_cast<std::size_t>(n_items * n_modalities), 1);
  if (n_modalities > 1) {
    for (auto& flag : present) flag = random.below(8) != 0;
  }
  Lists lists(n_queries, k);
  recfuse::FusedItemsArgs args{.items = items, .num_threads = 1};
  if (n_modalities > 1) args.present = {present.data(), n_items, n_modalities};
  measure([&] {
    const recfuse::FusedIndex index(args);
    index.topk({.queries = queries, .weights = {weights.data(), 1, n_modalities}, .k = k, .num_threads = 1}, lists.out);
  });
}

void similarity(std::int64_t largest_value, float unit) {
  const Sparse matrix(2000, 1500, 60, largest_value, unit);
  Lists lists(2000, 20);
  measure([&] { recfuse::cosine_knn({.matrix = matrix.view(), .k = 20, .num_threads = 1}, lists.out); });
}

void als(recfuse::LinearSolver solver, recfuse::AlsObjective objective, std::int64_t factors) {
  const Sparse user_items(600, 400, 50, 3, 1);
  recfuse::AlsSolver model(user_items.view(), {.objective = objective, .solver = solver, .factors = factors}, 1);
  Random random;
  std::vector<float> users = random_matrix(random, 600 * factors), items = random_matrix(random, 400 * factors);
  model.set_factors({{users.data(), 600, factors}, {items.data(), 400, factors}});
  measure([&] { model.step(1); });
}

using recfuse::AlsObjective;
using recfuse::LinearSolver;

const std::vector<std::pair<std::string, std::function<void()>>> kCases{
    {"topk 1x20000x64", [] { search({64}, 1, 20'000, 10); }},
    {"topk 256x4000x64", [] { search({64}, 256, 4000, 10); }},
    {"topk 64x4000x64 k200", [] { search({64}, 64, 4000, 200); }},
    {"fuse_topk 128x3000x(16+32+64)", [] { search({16, 32, 64}, 128, 3000, 20); }},
    {"cosine_knn counts", [] { similarity(1, 1); }},
    {"cosine_knn integers", [] { similarity(5, 1); }},
    {"cosine_knn reals", [] { similarity(5, 0.3F); }},
    {"als implicit cholesky 32", [] { als(LinearSolver::kCholesky, AlsObjective::kImplicit, 32); }},
    {"als implicit cg 64", [] { als(LinearSolver::kCg, AlsObjective::kImplicit, 64); }},
    {"als explicit cholesky 32", [] { als(LinearSolver::kCholesky, AlsObjective::kExplicit, 32); }},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::printf("%s\n", __VERSION__);
    for (const auto& [name, run] : kCases) std::printf("%s\n", name.c_str());
    return 0;
  }
  for (const auto& [name, run] : kCases) {
    if (name != argv[1]) continue;
    run();
    return 0;
  }
  std::fprintf(stderr, "no case %s\n", argv[1]);
  return 1;
}
