// What every device does alike before it solves anything: checks, the other orientation, mean and penalties.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "recfuse/als.hpp"

namespace recfuse {

/// Every check of ALS; they throw as AlsSolver says.
void validate(const CsrView& user_items, const AlsParams& params, int num_threads);
void validate(const AlsFactors<const float>& factors, const AlsParams& params, std::int64_t n_users,
              std::int64_t n_items);
void validate(const AlsFactors<float>& out, const AlsParams& params, std::int64_t n_users, std::int64_t n_items);
void validate_fold_in(const CsrView& user_items, const MatrixView<float>& factors, std::span<const float> biases,
                      const AlsParams& params, std::int64_t n_items, int num_threads);
void validate_als_threads(int num_threads);

/// The regularization of every row, after frequency scaling, or one number for all. Throws where one is not finite.
std::vector<double> als_penalties(const CsrView& csr, const AlsParams& params);

/// Iterations of a solver to the objective that the exact one reaches, relative to its own.
double als_iterations(const AlsParams& params, LinearSolver solver);

/// Mean of the stored values; 0 where there are none.
double mean_of_values(const CsrView& csr);

/// The interactions of a fit by users, as they were given, and by items.
class AlsProblem {
 public:
  /// Checks all of it.
  AlsProblem(const CsrView& user_items, const AlsParams& params, int num_threads);

  CsrView item_users() const;

  CsrView user_items;
  AlsParams params;
  double mean = 0;  // 0 without biases
  std::vector<double> user_penalties, item_penalties;

 private:
  std::vector<std::int64_t> indptr_;
  std::vector<std::int32_t> indices_;
  std::vector<float> values_;
};

}  // namespace recfuse
