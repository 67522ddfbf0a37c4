#include "recfuse/als_eigen.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace recfuse {
namespace {

/// Square, by rows. Loops run along rows, where the compiler makes vectors of them.
class Square {
 public:
  explicit Square(std::int64_t n) : n_(n), elements_(static_cast<std::size_t>(n * n), 0.0) {}
  double* row(std::int64_t i) { return elements_.data() + i * n_; }
  std::vector<double> take() { return std::move(elements_); }

 private:
  std::int64_t n_;
  std::vector<double> elements_;
};

void add_scaled(double scale, const double* x, std::int64_t n, double* y) {
  for (std::int64_t c = 0; c < n; ++c) y[c] += scale * x[c];
}

/// T = Q A Q' with the diagonal in `d` and, from 1 on, the elements beside it in `e`. Returns Q.
Square tridiagonal_form(Square a, std::int64_t n, std::vector<double>& d, std::vector<double>& e) {
  std::vector<double> p(static_cast<std::size_t>(n)), scale(static_cast<std::size_t>(n), 0.0);
  for (std::int64_t i = n - 1; i > 0; --i) {
    double* v = a.row(i);  // becomes the vector of the reflection that clears it up to its last element
    double others = 0;
    for (std::int64_t k = 0; k < i - 1; ++k) others += v[k] * v[k];
    const double last = v[i - 1];
    d[static_cast<std::size_t>(i)] = v[i];
    if (others == 0) {
      e[static_cast<std::size_t>(i)] = last;
      continue;
    }
    const double sum = others + last * last;
    const double reflected = last > 0 ? -std::sqrt(sum) : std::sqrt(sum);
    e[static_cast<std::size_t>(i)] = reflected;
    v[i - 1] = last - reflected;
    const double beta = 1 / (sum - last * reflected);  // 2 / |v|^2
    scale[static_cast<std::size_t>(i)] = beta;
    // A - v q' - q v' with q = beta A v - (beta^2 v'A v / 2) v
    std::fill_n(p.begin(), i, 0.0);
    for (std::int64_t k = 0; k < i; ++k) add_scaled(beta * v[k], a.row(k), i, p.data());
    double product = 0;
    for (std::int64_t k = 0; k < i; ++k) product += v[k] * p[static_cast<std::size_t>(k)];
    add_scaled(-0.5 * beta * product, v, i, p.data());
    for (std::int64_t k = 0; k < i; ++k) {
      add_scaled(-v[k], p.data(), i, a.row(k));
      add_scaled(-p[static_cast<std::size_t>(k)], v, i, a.row(k));
    }
  }
  d[0] = a.row(0)[0];
  Square transposed(n);  // H_{n-1} ... H_1, the reflections; the first i rows and columns of H_i are no identity
  for (std::int64_t i = 0; i < n; ++i) transposed.row(i)[i] = 1;
  for (std::int64_t i = 1; i < n; ++i) {
    if (scale[static_cast<std::size_t>(i)] == 0) continue;
    const double* v = a.row(i);
    std::fill(p.begin(), p.end(), 0.0);
    for (std::int64_t k = 0; k < i; ++k) add_scaled(v[k], transposed.row(k), i, p.data());
    for (std::int64_t k = 0; k < i; ++k) {
      add_scaled(-scale[static_cast<std::size_t>(i)] * v[k], p.data(), i, transposed.row(k));
    }
  }
  Square q(n);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t k = 0; k < n; ++k) q.row(k)[i] = transposed.row(i)[k];
  }
  return q;
}

/// One implicit QL step on the block from `first` to `last`; turns the rows of `q` along.
void ql_step(std::int64_t first, std::int64_t last, std::int64_t n, std::vector<double>& d, std::vector<double>& e,
             Square& q) {
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  const double half = (d[at(first + 1)] - d[at(first)]) / (2 * e[at(first + 1)]);
  double g = d[at(last)] - d[at(first)] + e[at(first + 1)] / (half + std::copysign(std::hypot(half, 1.0), half));
  double sine = 1, cosine = 1, shift = 0;
  for (std::int64_t i = last - 1; i >= first; --i) {
    const double f = sine * e[at(i + 1)], b = cosine * e[at(i + 1)];
    const double r = std::hypot(f, g);
    if (i + 1 < last) e[at(i + 2)] = r;
    if (r == 0) {
      d[at(i + 1)] -= shift;
      return;
    }
    sine = f / r;
    cosine = g / r;
    const double next = d[at(i + 1)] - shift;
    const double turned = (d[at(i)] - next) * sine + 2 * cosine * b;
    shift = sine * turned;
    d[at(i + 1)] = next + shift;
    g = cosine * turned - b;
    double *lower = q.row(i), *upper = q.row(i + 1);
    for (std::int64_t k = 0; k < n; ++k) {
      const double x = upper[k], y = lower[k];
      upper[k] = sine * y + cosine * x;
      lower[k] = cosine * y - sine * x;
    }
  }
  d[at(first)] -= shift;
  e[at(first + 1)] = g;
}

}  // namespace

Eigen eigen_of(const double* matrix, std::int64_t n, std::int64_t stride) {
  Square a(n);
  for (std::int64_t i = 0; i < n; ++i) {
    if (!std::all_of(matrix + i * stride, matrix + i * stride + n, [](double x) { return std::isfinite(x); })) {
      return {};
    }
    std::copy_n(matrix + i * stride, n, a.row(i));
  }
  std::vector<double> d(static_cast<std::size_t>(n)), e(static_cast<std::size_t>(n), 0.0);
  Square q = tridiagonal_form(std::move(a), n, d, e);
  constexpr int kMostSteps = 60;  // of one eigenvalue; two are usual
  for (std::int64_t first = 0; first < n; ++first) {
    for (int step = 0;; ++step) {
      std::int64_t last = first;
      for (; last < n - 1; ++last) {
        const auto i = static_cast<std::size_t>(last);
        const double beside = std::abs(e[i + 1]);
        if (beside <= std::numeric_limits<double>::epsilon() * (std::abs(d[i]) + std::abs(d[i + 1]))) break;
      }
      if (last == first) break;
      if (step == kMostSteps) return {};
      ql_step(first, last, n, d, e, q);
    }
  }
  return {std::move(d), q.take()};
}

}  // namespace recfuse
