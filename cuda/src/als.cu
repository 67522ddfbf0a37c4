#include "als_on_devices.cuh"
#include "device.cuh"
#include "recfuse/cuda/als.hpp"

namespace recfuse::cuda {

extern template class BlockHalfStep<Gpu>;
extern template class CgHalfStep<Gpu>;
extern template class DualHalfStep<Gpu>;

struct AlsSolver::State {
  AlsOnDevices<Gpu> fit;
};

AlsSolver::AlsSolver(const CsrView& user_items, const AlsParams& params, int num_threads, std::span<const int> devices,
                     std::int64_t device_bytes)
    : state_(new State{
          AlsOnDevices<Gpu>(devices, user_items, params, {.room = {.device_bytes = device_bytes}}, num_threads)}) {}
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
bool AlsSolver::is_streamed() const { return state_->fit.is_streamed(); }

void AlsSolver::set_factors(const AlsFactors<const float>& start) { state_->fit.set_factors(start); }

void AlsSolver::factors(const AlsFactors<float>& out) const { state_->fit.factors(out); }

void AlsSolver::step(int num_threads) { state_->fit.step(num_threads); }

double AlsSolver::loss(int num_threads) const { return state_->fit.loss(num_threads); }

void AlsSolver::fold_in(const CsrView& user_items, const MatrixView<float>& factors, std::span<float> biases,
                        int num_threads) const {
  state_->fit.fold_in(user_items, factors, biases, num_threads);
}

}  // namespace recfuse::cuda
