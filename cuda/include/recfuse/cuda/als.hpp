// Alternating least squares on an NVIDIA GPU: the functions of recfuse::AlsSolver.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "recfuse/als.hpp"
#include "recfuse/device_memory.hpp"

namespace recfuse::cuda {

/// recfuse::AlsSolver with interactions and factors in the memory of a device, or of several: each then solves some of
/// the rows, and the bytes are those of one. Parameters mean what they mean there, but that kAuto goes by what a device
/// is predicted to take, and that conjugate gradients round no factors to bfloat16. Two runs give the same bytes; those
/// of the CPU differ by rounding. Keeps no view of `user_items`. Throws what that throws, DeviceError and
/// DeviceOutOfMemory.
///
/// Where a device has not got the memory for the interactions, or where `device_bytes` of it are less than they and all
/// else take, they are streamed: from pinned memory of the host, 16 bytes for each, through the device in every step,
/// with the same bytes.
class AlsSolver {
 public:
  AlsSolver(const CsrView& user_items, const AlsParams& params, int num_threads = 0,
            std::span<const int> devices = kFirst, std::int64_t device_bytes = kUnlimitedBytes);
  ~AlsSolver();
  AlsSolver(AlsSolver&&) noexcept;
  AlsSolver& operator=(AlsSolver&&) noexcept;

  std::int64_t n_users() const;
  std::int64_t n_items() const;
  const AlsParams& params() const;
  double global_mean() const;
  void set_global_mean(double mean);
  void set_factors(const AlsFactors<const float>& start);
  void factors(const AlsFactors<float>& out) const;
  void step(int num_threads = 0);
  std::int64_t finished_steps() const;
  double loss(int num_threads = 0) const;
  void fold_in(const CsrView& user_items, const MatrixView<float>& factors, std::span<float> biases,
               int num_threads = 0) const;
  LinearSolver solver() const;
  std::int64_t float64_rows() const;
  bool is_streamed() const;

 private:
  static constexpr int kFirst[1] = {0};
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace recfuse::cuda
