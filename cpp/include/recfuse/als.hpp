// Matrix factorisation by alternating least squares, for implicit feedback and for ratings.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "recfuse/confidence.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

enum class AlsObjective { kImplicit, kExplicit };
enum class LinearSolver { kAuto, kCholesky, kCg, kBlock };

/// By their Python names; std::invalid_argument lists the names that exist.
AlsObjective objective_named(std::string_view name);
LinearSolver solver_named(std::string_view name);
std::string_view name_of(LinearSolver solver);

struct AlsParams {
  AlsObjective objective = AlsObjective::kImplicit;
  LinearSolver solver = LinearSolver::kAuto;
  std::int64_t factors = 64;
  double regularization = 0.01;
  double alpha = 1.0;              // implicit only
  double base_confidence = 1.0;    // implicit only: of a stored zero, from 0 to 1; on a GPU 1
  double frequency_scaling = 0.0;  // nu
  bool biases = false;             // explicit only
  std::int64_t cg_steps = 2;
  std::int64_t dual_entries = -1;  // rows up to here have a system of their entries, exact solver only; -1: what pays
  bool double_precision = false;   // every system in float64 by Cholesky, slowly: a reference for tests
};

/// Starting or learned values; spans of biases are empty where the model has none.
template <class T>
struct AlsFactors {
  MatrixView<T> users;  // (n_users, factors)
  MatrixView<T> items;  // (n_items, factors)
  std::span<T> user_biases = {};
  std::span<T> item_biases = {};
};

/// Alternates solutions (exact, a few steps of conjugate gradients, or one round over blocks of unknowns) of the
/// least-squares problems of all users and of all items.
///
///   implicit: sum_ui c_ui (p_ui - x_u . y_i)^2 + sum_u l_u |x_u|^2 + sum_i l_i |y_i|^2
///             c, p as in confidence.hpp on stored entries, 1 and 0 elsewhere
///   explicit: sum_stored (r_ui - mu - b_u - b_i - x_u . y_i)^2 + sum_u l_u (|x_u|^2 + b_u^2) + the same of items
///             mu the mean of the stored values; without biases mu = b = 0
///   l_u = regularization * n_u^nu (explicit), regularization * ((alpha + base_confidence - 1) n_u + n_items)^nu
///         (implicit)
///
/// Rows without entries get zeros. Results do not depend on num_threads. Keeps a view of `user_items`: it must
/// outlive the solver. Methods throw std::invalid_argument, std::out_of_range, and std::domain_error where a system
/// is singular; some rows are then new and others still old.
class AlsSolver {
 public:
  AlsSolver(const CsrView& user_items, const AlsParams& params, int num_threads = 0);
  ~AlsSolver();
  AlsSolver(AlsSolver&&) noexcept;
  AlsSolver& operator=(AlsSolver&&) noexcept;

  std::int64_t n_users() const;
  std::int64_t n_items() const;
  const AlsParams& params() const;

  /// mu; 0 without biases. Set it where the interactions of the fit are not at hand, to fold in.
  double global_mean() const;
  void set_global_mean(double mean);

  void set_factors(const AlsFactors<const float>& start);
  void factors(const AlsFactors<float>& out) const;

  /// Solves for all users, then for all items.
  void step(int num_threads = 0);

  /// Steps since set_factors; 0 after one that threw.
  std::int64_t finished_steps() const;

  /// The objective, in float64.
  double loss(int num_threads = 0) const;

  /// Factors (rows, factors) of users that are not in the model, from their interactions; exact whatever the solver.
  /// `biases` has one element per row, or none where the model has no biases. Safe beside itself, not beside a step.
  void fold_in(const CsrView& user_items, const MatrixView<float>& factors, std::span<float> biases,
               int num_threads = 0) const;

  /// That of the parameters, or what kAuto was resolved to.
  LinearSolver solver() const;

  /// How many rows were solved again in float64 since the start, because float32 could not hold a pivot.
  std::int64_t float64_rows() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace recfuse
