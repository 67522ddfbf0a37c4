#include "ops/als_loss.hpp"

#include <vector>

#include "isa/dispatch.hpp"
#include "ops/als_gram.hpp"
#include "ops/ordered_sum.hpp"

namespace recfuse {
namespace {

double norm2(const kernels::KernelTable& kernels, const AlsParams& params, const AlsSide& side, std::int64_t row) {
  const float* x = side.factors.row(row);
  double sum = kernels.canonical_dot(x, x, params.factors);
  if (params.biases) {
    const double bias = side.biases[static_cast<std::size_t>(row)];
    sum += bias * bias;
  }
  return sum;
}

double penalty_of(const AlsParams& params, const AlsSide& side, int num_threads) {
  constexpr std::int64_t kRows = 4096;
  const kernels::KernelTable& kernels = kernel_table();
  std::vector<double> sum(1, 0.0);
  sum_in_order((side.factors.rows + kRows - 1) / kRows, num_threads, sum,
               [&](std::int64_t chunk, int, std::span<double> out) {
                 const std::int64_t end = std::min(side.factors.rows, (chunk + 1) * kRows);
                 for (std::int64_t i = chunk * kRows; i < end; ++i) {
                   out[0] += side.penalty(i) * norm2(kernels, params, side, i);
                 }
               });
  return sum[0];
}

/// Squared error of a stored entry, less what the implicit objective's sum over all pairs has counted for it.
double entry_loss(const AlsParams& params, double value, double predicted) {
  if (params.objective == AlsObjective::kExplicit) return (value - predicted) * (value - predicted);
  return implicit_entry_loss(value, predicted, params.alpha, params.base_confidence);
}

/// sum_ui (x_u . y_i)^2, from the two Gram matrices.
double all_pairs(const AlsParams& params, const AlsSide& users, const AlsSide& items, int num_threads) {
  const std::vector<double> gx = gram_of(users.factors, num_threads), gy = gram_of(items.factors, num_threads);
  double sum = 0;
  for (std::int64_t r = 0; r < params.factors; ++r) {
    for (std::int64_t c = 0; c < params.factors; ++c) {
      const auto at = static_cast<std::size_t>(r * users.factors.layout.stride + c);
      sum += gx[at] * gy[at];
    }
  }
  return sum;
}

}  // namespace

double als_loss(const AlsParams& params, double mean, const AlsSide& users, const AlsSide& items, int num_threads) {
  const kernels::KernelTable& kernels = kernel_table();
  std::vector<double> entries(1, 0.0);
  // Rows as they are scheduled: the huge ones one by one, then the chunks.
  const auto n_huge = static_cast<std::int64_t>(users.n_huge);
  const auto n_chunks = static_cast<std::int64_t>(users.chunks.size()) - 1;
  sum_in_order(n_huge + n_chunks, num_threads, entries, [&](std::int64_t chunk, int, std::span<double> out) {
    const auto c = static_cast<std::size_t>(chunk - n_huge);
    const std::size_t first = chunk < n_huge ? static_cast<std::size_t>(chunk) : users.chunks[c];
    const std::size_t end = chunk < n_huge ? first + 1 : users.chunks[c + 1];
    for (std::size_t at = first; at < end; ++at) {
      const std::int32_t user = users.order[at];
      const CsrView& csr = users.interactions;
      for (std::int64_t j = 0; j < csr.row_size(user); ++j) {
        const std::int32_t item = csr.row_indices(user)[j];
        double predicted = kernels.canonical_dot(users.factors.row(user), items.factors.row(item), params.factors);
        if (params.biases) {
          predicted +=
              mean + users.biases[static_cast<std::size_t>(user)] + items.biases[static_cast<std::size_t>(item)];
        }
        out[0] += entry_loss(params, csr.row_values(user)[j], predicted);
      }
    }
  });
  double loss = entries[0] + penalty_of(params, users, num_threads) + penalty_of(params, items, num_threads);
  if (params.objective == AlsObjective::kImplicit) loss += all_pairs(params, users, items, num_threads);
  return loss;
}

}  // namespace recfuse
