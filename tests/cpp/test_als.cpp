// Alternating least squares on every instruction set, against the same systems in float64.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "recfuse/als_problem.hpp"
#include "recfuse/recfuse.hpp"

namespace {

using recfuse::AlsObjective;
using recfuse::AlsParams;
using recfuse::LinearSolver;

struct Csr {
  std::int64_t rows, cols;
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<float> values;

  /// One entry in `one_in`, values 1 to 5.
  Csr(std::int64_t n_rows, std::int64_t n_cols, unsigned one_in, unsigned seed) : rows(n_rows), cols(n_cols) {
    std::mt19937 random(seed);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int32_t col = 0; col < cols; ++col) {
        if (random() % one_in != 0) continue;
        indices.push_back(col);
        values.push_back(static_cast<float>(random() % 5 + 1));
      }
      indptr.push_back(static_cast<std::int64_t>(indices.size()));
    }
  }

  recfuse::CsrView view() const { return {indptr.data(), indices.data(), values.data(), rows, cols}; }
};

struct Model {
  std::vector<float> users, items;
  double loss;
};

Model fit(const Csr& matrix, const AlsParams& params, int num_threads) {
  std::mt19937 random(7);
  Model model{std::vector<float>(static_cast<std::size_t>(matrix.rows * params.factors)),
              std::vector<float>(static_cast<std::size_t>(matrix.cols * params.factors)), 0};
  for (auto* values : {&model.users, &model.items}) {
    for (float& value : *values) value = static_cast<float>(random() % 1000) / 10000.0F - 0.05F;
  }
  recfuse::AlsSolver solver(matrix.view(), params, num_threads);
  solver.set_factors({.users = {model.users.data(), matrix.rows, params.factors},
                      .items = {model.items.data(), matrix.cols, params.factors}});
  for (int i = 0; i < 3; ++i) solver.step(num_threads);
  solver.factors({.users = {model.users.data(), matrix.rows, params.factors},
                  .items = {model.items.data(), matrix.cols, params.factors}});
  model.loss = solver.loss(num_threads);
  return model;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  return largest;
}

}  // namespace

TEST(every_isa_solves_the_systems) {
  const auto before = recfuse::active_isa();
  const Csr matrix(60, 45, 5, 20261121);
  for (const auto objective : {AlsObjective::kImplicit, AlsObjective::kExplicit}) {
    for (const std::int64_t factors : {1, 7, 33}) {
      AlsParams params{
          .objective = objective, .solver = LinearSolver::kCholesky, .factors = factors, .regularization = 0.5};
      params.double_precision = true;
      const Model exact = fit(matrix, params, 1);
      params.double_precision = false;
      for (const auto& isa : recfuse::available_isas()) {
        recfuse::set_isa(isa);
        const Model one = fit(matrix, params, 1), two = fit(matrix, params, 2);
        CHECK(one.users == two.users && one.items == two.items);
        CHECK(largest_difference(one.users, exact.users) < 1e-3);
        CHECK(largest_difference(one.items, exact.items) < 1e-3);
        AlsParams cg = params;
        cg.solver = LinearSolver::kCg;
        cg.cg_steps = 3 * factors + 10;
        CHECK(std::abs(fit(matrix, cg, 2).loss - exact.loss) < 1e-3 * exact.loss);
      }
    }
  }
  recfuse::set_isa(before);
}

TEST(steps_and_blocks_of_every_width) {
  const auto before = recfuse::active_isa();
  const Csr matrix(60, 45, 5, 20261121);
  for (const auto& isa : recfuse::available_isas()) {
    recfuse::set_isa(isa);
    for (const std::int64_t factors : {1, 33, 64, 100, 130}) {
      const AlsParams params{.solver = LinearSolver::kCholesky, .factors = factors, .regularization = 5};
      const double exact = fit(matrix, params, 1).loss;
      for (const auto solver : {LinearSolver::kCg, LinearSolver::kBlock}) {
        AlsParams other = params;
        other.solver = solver;
        const Model one = fit(matrix, other, 1), two = fit(matrix, other, 2);
        CHECK(one.users == two.users && one.items == two.items);
        CHECK(std::abs(one.loss - exact) < 0.05 * exact);
      }
    }
  }
  recfuse::set_isa(before);
}

TEST(wrong_values_throw) {
  const Csr matrix(3, 4, 2, 1);
  const auto view = matrix.view();
  CHECK_THROWS(std::invalid_argument, "als: factors must be at least 1; got 0",
               recfuse::AlsSolver(view, {.factors = 0}));
  CHECK_THROWS(std::invalid_argument, "als: regularization must be finite and at least 0; got -1",
               recfuse::AlsSolver(view, {.regularization = -1}));
  CHECK_THROWS(std::invalid_argument, "als: base_confidence must be between 0 and 1; got 2",
               recfuse::AlsSolver(view, {.base_confidence = 2}));
}

TEST(devices_take_no_confidence_below_1) {
  const Csr matrix(3, 4, 2, 1);
  CHECK_THROWS(std::invalid_argument, "als: base_confidence must be 1 on a GPU; got 0. device='cpu' takes others",
               recfuse::AlsProblem(matrix.view(), {.base_confidence = 0}, 1));
}
