#include "recfuse/als_problem.hpp"

#include <cmath>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "ops/transpose.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

CsrView validated(const CsrView& user_items, const AlsParams& params, int num_threads) {
  validate(user_items, params, num_threads);
  if (params.base_confidence != 1) {  // kernels of devices take square roots of what an entry counts more
    std::ostringstream message;
    message << "als: base_confidence must be 1 on a GPU; got " << params.base_confidence
            << ". device='cpu' takes others";
    throw std::invalid_argument(message.str());
  }
  return user_items;
}

}  // namespace

void validate_als_threads(int num_threads) { validate_num_threads(num_threads, "als"); }

std::vector<double> als_penalties(const CsrView& csr, const AlsParams& params) {
  if (params.frequency_scaling == 0) return {params.regularization};
  std::vector<double> penalties(static_cast<std::size_t>(csr.rows));
  for (std::int64_t i = 0; i < csr.rows; ++i) {
    const auto n = static_cast<double>(csr.row_size(i));
    const double extra = params.alpha + (params.base_confidence - 1);
    const double frequency =
        params.objective == AlsObjective::kImplicit ? extra * n + static_cast<double>(csr.cols) : n;
    penalties[static_cast<std::size_t>(i)] = params.regularization * std::pow(frequency, params.frequency_scaling);
  }
  validate_penalties(penalties, params);
  return penalties;
}

double mean_of_values(const CsrView& csr) {
  double sum = 0;
  for (std::int64_t j = csr.indptr[0]; j < csr.indptr[csr.rows]; ++j) sum += csr.values[j];
  return csr.nnz() == 0 ? 0.0 : sum / static_cast<double>(csr.nnz());
}

AlsProblem::AlsProblem(const CsrView& given, const AlsParams& p, int num_threads)
    : user_items(validated(given, p, num_threads)), params(p) {
  OwnedCsr transposed = transpose(user_items, num_threads);
  indptr_ = std::move(transposed.indptr);
  indices_ = std::move(transposed.indices);
  values_ = std::move(transposed.values);
  if (params.biases) mean = mean_of_values(user_items);
  user_penalties = als_penalties(user_items, params);
  item_penalties = als_penalties(item_users(), params);
}

CsrView AlsProblem::item_users() const {
  return {indptr_.data(), indices_.data(), values_.data(), user_items.cols, user_items.rows};
}

}  // namespace recfuse
