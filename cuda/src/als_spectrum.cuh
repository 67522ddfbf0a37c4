// Eigenvectors of the Gram matrix, which the host finds between two launches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <utility>
#include <vector>

#include "als_system.cuh"
#include "recfuse/als_eigen.hpp"

namespace recfuse::cuda {

/// What kernels ask of it beside the coordinates themselves.
struct Spectrum {
  double least_eigenvalue;
  float least;         // eigenvalue plus penalty that float32 holds beside the largest
  std::int32_t found;  // 0: the Gram matrix is not finite
};

/// Where all of it lies, one behind the other.
template <class Byte>
struct SpectrumPlaces {
  Byte* begin;
  std::int64_t size, width;

  static std::size_t bytes(std::int64_t size, std::int64_t width) {
    return sizeof(Spectrum) + static_cast<std::size_t>(width + 2 * size * width) * sizeof(float);
  }
  auto* spectrum() const { return as<Spectrum>(begin); }
  auto* eigenvalues() const { return as<float>(begin + sizeof(Spectrum)); }  // (width)
  auto* there() const { return eigenvalues() + width; }                      // (size, width): a column an eigenvector
  auto* back() const { return there() + size * width; }                      // the same, transposed

 private:
  template <class T>
  static auto* as(char* place) {
    return static_cast<T*>(static_cast<void*>(place));
  }
  template <class T>
  static auto* as(const char* place) {
    return static_cast<const T*>(static_cast<const void*>(place));
  }
};

/// The host's part. Stays where it is: recordings call it.
template <class Device>
class SpectrumOnHost {
 public:
  SpectrumOnHost(Device& device, const SystemShape& shape)
      : shape_(shape),
        gram_(device, static_cast<std::size_t>(shape.elements())),
        places_(device, SpectrumPlaces<char>::bytes(shape.size, shape.padded())) {}

  /// From `gram` on the device to `to` there.
  void send(Device& device, const double* gram, char* to) { device.call_host(gram, gram_, *this, places_, to); }

  void operator()() noexcept {
    try {
      write();
    } catch (...) {  // who waits hears of it
      error_ = std::current_exception();
      clear();
    }
  }
  /// What operator() could not throw. When the device has been waited for.
  void rethrow() {
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  SpectrumPlaces<char> places() { return {places_.data(), shape_.size, shape_.padded()}; }
  /// Coordinates that harm nobody.
  void clear() noexcept { std::fill_n(places_.data(), places_.size(), char{0}); }

  void write() {
    constexpr double kSmallestEigenvalue = 0x1p-24;  // as on the CPU
    const int size = shape_.size, width = shape_.padded();
    std::vector<double> square(static_cast<std::size_t>(size * size));
    for (int r = 0; r < size; ++r) {
      for (int c = 0; c <= r; ++c) {
        const double element = gram_.data()[r * shape_.stride() + c];
        square[static_cast<std::size_t>(r * size + c)] = square[static_cast<std::size_t>(c * size + r)] = element;
      }
    }
    const Eigen eigen = eigen_of(square.data(), size, size);
    clear();
    if (eigen.values.empty()) return;
    const SpectrumPlaces<char> to = places();
    double largest = 0, least = std::numeric_limits<double>::infinity();
    for (int r = 0; r < size; ++r) {
      const double value = std::max(eigen.values[static_cast<std::size_t>(r)], 0.0);
      largest = std::max(largest, value);
      least = std::min(least, value);
      to.eigenvalues()[r] = static_cast<float>(value);
      for (int c = 0; c < size; ++c) {
        const auto element = static_cast<float>(eigen.vectors[static_cast<std::size_t>(r * size + c)]);
        to.back()[r * width + c] = to.there()[c * width + r] = element;
      }
    }
    *to.spectrum() = {least, static_cast<float>(kSmallestEigenvalue * largest), 1};
  }

  const SystemShape shape_;
  typename Device::template HostArray<double> gram_;
  typename Device::template HostArray<char> places_;
  std::exception_ptr error_;
};

}  // namespace recfuse::cuda
