#include "als_fit.cuh"
#include "device.cuh"
#include "recfuse/cuda/als.hpp"

namespace recfuse::cuda {

extern template class BlockHalfStep<Gpu>;
extern template class CgHalfStep<Gpu>;
extern template class DualHalfStep<Gpu>;

struct AlsSolver::State {
  Gpu gpu;
  AlsFit<Gpu> fit;

  State(const CsrView& user_items, const AlsParams& params, int num_threads)
      : fit(gpu, user_items, params, {}, num_threads) {}
};

AlsSolver::AlsSolver(const CsrView& user_items, const AlsParams& params, int num_threads) {
  const Entered here(Gpu::kIndex);
  state_ = std::make_unique<State>(user_items, params, num_threads);
}
AlsSolver::~AlsSolver() = default;
AlsSolver::AlsSolver(AlsSolver&&) noexcept = default;
AlsSolver& AlsSolver::operator=(AlsSolver&&) noexcept = default;

std::int64_t AlsSolver::n_users() const { return state_->fit.n_users(); }
std::int64_t AlsSolver::n_items() const { return state_->fit.n_items(); }
const AlsParams& AlsSolver::params() const { return state_->fit.params(); }
double AlsSolver::global_mean() const { return state_->fit.global_mean(); }
void AlsSolver::set_global_mean(double mean) { state_->fit.set_global_mean(mean); }
std::int64_t AlsSolver::finished_steps() const { return state_->fit.finished_steps(); }
LinearSolver AlsSolver::solver() const { return state_->fit.solver(); }
std::int64_t AlsSolver::float64_rows() const { return state_->fit.float64_rows(); }

void AlsSolver::set_factors(const AlsFactors<const float>& start) {
  const Entered here(Gpu::kIndex);
  state_->fit.set_factors(start);
}

void AlsSolver::factors(const AlsFactors<float>& out) const {
  const Entered here(Gpu::kIndex);
  state_->fit.factors(out);
}

void AlsSolver::step(int num_threads) {
  const Entered here(Gpu::kIndex);
  state_->fit.step(num_threads);
}

double AlsSolver::loss(int num_threads) const {
  const Entered here(Gpu::kIndex);
  return state_->fit.loss(num_threads);
}

void AlsSolver::fold_in(const CsrView& user_items, const MatrixView<float>& factors, std::span<float> biases,
                        int num_threads) const {
  const Entered here(Gpu::kIndex);
  state_->fit.fold_in(user_items, factors, biases, num_threads);
}

}  // namespace recfuse::cuda
