#include "recfuse/als.hpp"

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>

#include "ops/als_cost.hpp"
#include "ops/als_loss.hpp"
#include "ops/als_solve.hpp"
#include "ops/transpose.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

AlsParams validated(const CsrView& user_items, const AlsParams& params, int num_threads) {
  validate(user_items, params, num_threads);
  return params;
}

void copy_in(const MatrixView<const float>& from, std::span<const float> biases, AlsSide& side, int num_threads) {
  side.factors.copy_from(from, num_threads);
  if (!biases.empty()) std::copy(biases.begin(), biases.end(), side.biases.begin());
}

void copy_out(const AlsSide& side, const MatrixView<float>& to, std::span<float> biases, int num_threads) {
  side.factors.copy_to(to, num_threads);
  std::copy_n(side.biases.begin(), biases.size(), biases.begin());
}

}  // namespace

struct AlsSolver::State {
  AlsParams params;
  int num_threads;  // of what is not given another number
  OwnedCsr item_users;
  AlsSide users;
  AlsSide items;
  AlignedVector<float> scratch;  // of steps; fold_in has its own
  double mean = 0;
  std::int64_t float64_rows = 0;
  std::int64_t finished_steps = 0;
  // Made at the first fold_in and valid until the items change.
  std::optional<SharedGram> fold_in_gram;
  std::mutex fold_in_mutex;

  State(const CsrView& user_items, const AlsParams& p, int n_threads)
      : params(validated(user_items, p, n_threads)),
        num_threads(n_threads),
        item_users(transpose(user_items, num_threads)),
        users(user_items, with_solver(user_items), "user", num_threads),
        items(item_users.view(), params, "item", num_threads) {
    if (params.biases) mean = mean_of_values(user_items);
  }

  /// params, kAuto resolved.
  const AlsParams& with_solver(const CsrView& user_items) {
    params.solver = chosen_solver(params, user_items, item_users.view());
    return params;
  }

  void solve(const AlsSide& others, AlsSide& side, int n_threads) {
    const SharedGram gram(params, others, n_threads);
    float64_rows += solve_side(params, mean, gram, others, side, scratch, n_threads);
  }
};

AlsSolver::AlsSolver(const CsrView& user_items, const AlsParams& params, int num_threads)
    : state_(std::make_unique<State>(user_items, params, num_threads)) {}
AlsSolver::~AlsSolver() = default;
AlsSolver::AlsSolver(AlsSolver&&) noexcept = default;
AlsSolver& AlsSolver::operator=(AlsSolver&&) noexcept = default;

std::int64_t AlsSolver::n_users() const { return state_->users.interactions.rows; }
std::int64_t AlsSolver::n_items() const { return state_->items.interactions.rows; }
const AlsParams& AlsSolver::params() const { return state_->params; }
double AlsSolver::global_mean() const { return state_->mean; }
void AlsSolver::set_global_mean(double mean) { state_->mean = mean; }
LinearSolver AlsSolver::solver() const { return state_->params.solver; }
std::int64_t AlsSolver::float64_rows() const { return state_->float64_rows; }
std::int64_t AlsSolver::finished_steps() const { return state_->finished_steps; }

void AlsSolver::set_factors(const AlsFactors<const float>& start) {
  validate(start, state_->params, n_users(), n_items());
  copy_in(start.users, start.user_biases, state_->users, state_->num_threads);
  copy_in(start.items, start.item_biases, state_->items, state_->num_threads);
  state_->fold_in_gram.reset();
  state_->finished_steps = 0;
}

void AlsSolver::factors(const AlsFactors<float>& out) const {
  validate(out, state_->params, n_users(), n_items());
  copy_out(state_->users, out.users, out.user_biases, state_->num_threads);
  copy_out(state_->items, out.items, out.item_biases, state_->num_threads);
}

void AlsSolver::step(int num_threads) {
  validate_num_threads(num_threads, "als");
  State& s = *state_;
  s.fold_in_gram.reset();
  const std::int64_t finished = std::exchange(s.finished_steps, 0);
  s.solve(s.items, s.users, num_threads);
  s.solve(s.users, s.items, num_threads);
  s.finished_steps = finished + 1;
}

double AlsSolver::loss(int num_threads) const {
  validate_num_threads(num_threads, "als");
  return als_loss(state_->params, state_->mean, state_->users, state_->items, num_threads);
}

void AlsSolver::fold_in(const CsrView& user_items, const MatrixView<float>& factors, std::span<float> biases,
                        int num_threads) const {
  State& s = *state_;
  AlsParams params = s.params;
  params.solver = LinearSolver::kCholesky;
  params.dual_entries = 0;  // so that a row's bits do not depend on the rows beside it
  validate_fold_in(user_items, factors, biases, params, n_items(), num_threads);
  AlsSide side(user_items, params, "user", num_threads);
  {
    const std::lock_guard lock(s.fold_in_mutex);
    if (!s.fold_in_gram) s.fold_in_gram.emplace(params, s.items, num_threads);
  }
  AlignedVector<float> scratch;
  solve_side(params, s.mean, *s.fold_in_gram, s.items, side, scratch, num_threads);
  copy_out(side, factors, biases, num_threads);
}

}  // namespace recfuse
