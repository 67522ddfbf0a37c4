// Every check of a value, once: Python and C++ callers get the same messages. Python checks types only.
#pragma once

#include <span>
#include <string>

#include "recfuse/als_problem.hpp"
#include "recfuse/cosine_knn.hpp"
#include "recfuse/fuse_topk.hpp"

namespace recfuse {

/// The regularization of every row, after frequency scaling.
void validate_penalties(std::span<const double> penalties, const AlsParams& params);

enum class Order { kAscending, kAny };

/// Indptr must not decrease; indices must lie in [0, cols) and, unless any order will do, ascend within a row.
void validate_csr(const CsrView& csr, const std::string& op, const char* argument, int num_threads,
                  Order order = Order::kAscending);
void validate_num_threads(int num_threads, const std::string& op);

/// What NeighbourScorer is given: its neighbours, and a history.
void validate_neighbours(const CsrView& neighbours, int num_threads);
void validate_history(const CsrView& history, const CsrView& neighbours, std::span<const std::int32_t> exclude,
                      const TopkOut& out);

}  // namespace recfuse
