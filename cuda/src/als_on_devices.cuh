// recfuse::AlsSolver on one device, or on several: what is bound to Python, of a GPU and of the emulator.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "als_fit.cuh"
#include "als_shards.cuh"
#include "parallel_devices.cuh"

namespace recfuse::cuda {

template <class Device>
class AlsOnDevices {
 public:
  AlsOnDevices(std::span<const int> devices, const CsrView& user_items, const AlsParams& params,
               const AlsLimits& limits = {}, int num_threads = 0)
      : index_(devices[0]) {
    if (devices.size() > 1) {
      several_.emplace(devices, user_items, params, limits, num_threads);
      return;
    }
    named_by_device(index_, [&] {
      [[maybe_unused]] const auto here = Device::enter(index_);
      device_.emplace(index_);
      one_.emplace(*device_, user_items, params, limits, num_threads);
    });
  }

  std::int64_t n_users() const { return several_ ? several_->n_users() : one_->n_users(); }
  std::int64_t n_items() const { return several_ ? several_->n_items() : one_->n_items(); }
  const AlsParams& params() const { return several_ ? several_->params() : one_->params(); }
  double global_mean() const { return several_ ? several_->global_mean() : one_->global_mean(); }
  void set_global_mean(double mean) { several_ ? several_->set_global_mean(mean) : one_->set_global_mean(mean); }
  std::int64_t finished_steps() const { return several_ ? several_->finished_steps() : one_->finished_steps(); }
  LinearSolver solver() const { return several_ ? several_->solver() : one_->solver(); }
  std::int64_t float64_rows() const { return several_ ? several_->float64_rows() : one_->float64_rows(); }
  bool is_streamed() const { return several_ ? several_->is_streamed() : one_->is_streamed(); }

  void set_factors(const AlsFactors<const float>& start) {
    on(*this, [&](auto& fit) { fit.set_factors(start); });
  }
  void factors(const AlsFactors<float>& out) const {
    on(*this, [&](const auto& fit) { fit.factors(out); });
  }
  void step(int num_threads = 0) {
    on(*this, [&](auto& fit) { fit.step(num_threads); });
  }
  double loss(int num_threads = 0) const {
    return on(*this, [&](const auto& fit) { return fit.loss(num_threads); });
  }
  void fold_in(const CsrView& user_items, const MatrixView<float>& factors, std::span<float> biases,
               int num_threads = 0) const {
    on(*this, [&](const auto& fit) { fit.fold_in(user_items, factors, biases, num_threads); });
  }

 private:
  /// f(solver), on its device where it has one.
  template <class Self, class F>
  static auto on(Self& self, const F& f) {
    if (self.several_) return f(*self.several_);
    return named_by_device(self.index_, [&] {
      [[maybe_unused]] const auto here = self.device_->enter();
      return f(*self.one_);
    });
  }

  int index_;
  std::optional<Device> device_;
  std::optional<AlsFit<Device>> one_;
  std::optional<AlsShards<Device>> several_;
};

}  // namespace recfuse::cuda
