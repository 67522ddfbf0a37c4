#include "validate.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>

#include "parallel_for.hpp"
#include "recfuse/nearest_rows.hpp"
#include "recfuse/sparse_product.hpp"

namespace recfuse {
namespace {

template <class Error = std::invalid_argument, class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

/// Whether all of these many rows, with so many entries together, are as they should be: `valid` takes some of them.
template <class Valid>
bool all_valid(std::int64_t n_rows, std::int64_t n_entries, int num_threads, Valid valid) {
  constexpr std::int64_t kEntriesPerChunk = 1 << 18;  // waking a thread for fewer takes longer than it saves
  const std::int64_t n_chunks =
      std::clamp<std::int64_t>(n_entries / kEntriesPerChunk, 1, std::max<std::int64_t>(n_rows, 1));
  std::atomic<bool> all = true;
  parallel_for(n_chunks, num_threads, [&](std::int64_t chunk, int) {
    if (!valid(chunk * n_rows / n_chunks, (chunk + 1) * n_rows / n_chunks)) all = false;
  });
  return all;
}

std::string shape(std::int64_t rows, std::int64_t cols) {
  std::ostringstream text;
  text << '(' << rows << ", " << cols << ')';
  return text.str();
}

/// items, items['text'] or items[1]: as the caller knows it.
std::string modality_of(const char* argument, const FusedItemsArgs& args, std::size_t m) {
  if (m < args.names.size()) return std::string(argument) + "['" + args.names[m] + "']";
  return args.items.size() == 1 ? argument : std::string(argument) + "[" + std::to_string(m) + "]";
}

void validate_filter(const CsrView& csr, const std::string& op, const char* argument, std::int64_t n_queries,
                     std::int64_t n_items, int num_threads) {
  if (!csr.given()) return;
  if (csr.rows != n_queries || csr.cols != n_items) {
    fail(op, ": ", argument, " must have shape ", shape(n_queries, n_items), " (queries, items); got ",
         shape(csr.rows, csr.cols));
  }
  validate_csr(csr, op, argument, num_threads);
}

void validate_weights(const MatrixView<const double>& weights, std::int64_t n_queries, const FusedItemsArgs& items) {
  const auto n_modalities = static_cast<std::int64_t>(items.items.size());
  if (weights.cols != n_modalities || (weights.rows != 1 && weights.rows != n_queries)) {
    fail(items.op, ": weights must have shape (1 or ", n_queries, ", ", n_modalities, "); got ",
         shape(weights.rows, weights.cols));
  }
  for (std::int64_t q = 0; q < weights.rows; ++q) {
    bool all_zero = true;
    for (std::int64_t m = 0; m < n_modalities; ++m) {
      const double w = weights.row(q)[m];
      if (!std::isfinite(w))
        fail(items.op, ": ", modality_of("weights", items, static_cast<std::size_t>(m)), " must be finite; got ", w,
             " for query ", q);
      all_zero = all_zero && w == 0.0;
    }
    if (all_zero) fail(items.op, ": weights must not all be 0; got only zeros for query ", q);
  }
}

void validate_queries(const FuseTopkArgs& args, const FusedItemsArgs& items) {
  const auto n_modalities = static_cast<std::int64_t>(items.items.size());
  if (args.queries.size() != items.items.size()) {
    fail(items.op, ": queries must have ", n_modalities, " modalities like items; got ", args.queries.size());
  }
  const std::int64_t n_queries = args.queries[0].rows;
  for (std::size_t m = 0; m < args.queries.size(); ++m) {
    if (args.queries[m].rows != n_queries) {
      fail(items.op, ": ", modality_of("queries", items, m), " must have ", n_queries, " rows like ",
           modality_of("queries", items, 0), "; got ", args.queries[m].rows);
    }
    if (args.queries[m].cols != items.items[m].cols) {
      fail(items.op, ": ", modality_of("queries", items, m), " must have ", items.items[m].cols, " columns like ",
           modality_of("items", items, m), "; got ", args.queries[m].cols);
    }
  }
  validate_num_threads(args.num_threads, items.op);
  validate_weights(args.weights, n_queries, items);
}

void validate_finite_values(const CsrView& csr, const char* op, const char* argument, int num_threads) {
  const bool finite = all_valid(csr.rows, csr.nnz(), num_threads, [&](std::int64_t first, std::int64_t last) {
    constexpr std::uint32_t kExponent = 0x7F800000;  // infinity and NaN have all of its bits
    int infinite = 0;
    for (std::int64_t j = csr.indptr[first]; j < csr.indptr[last]; ++j) {
      infinite |= (std::bit_cast<std::uint32_t>(csr.values[j]) & kExponent) == kExponent ? 1 : 0;
    }
    return infinite == 0;
  });
  if (finite) return;
  for (std::int64_t row = 0; row < csr.rows; ++row) {
    for (std::int64_t j = csr.indptr[row]; j < csr.indptr[row + 1]; ++j) {
      if (std::isfinite(csr.values[j])) continue;
      fail(op, ": ", argument, " must be finite; got ", csr.values[j], " at [", row, ", ", csr.indices[j], "]");
    }
  }
}

void validate_at_least_zero(double value, const char* op, const char* argument) {
  if (!(value >= 0) || !std::isfinite(value)) {
    fail(op, ": ", argument, " must be finite and at least 0; got ", value);
  }
}

void validate(const AlsParams& params) {
  if (params.factors < 1) fail("als: factors must be at least 1; got ", params.factors);
  validate_at_least_zero(params.regularization, "als", "regularization");
  validate_at_least_zero(params.alpha, "als", "alpha");
  if (!(params.base_confidence >= 0 && params.base_confidence <= 1)) {
    fail("als: base_confidence must be between 0 and 1; got ", params.base_confidence);
  }
  validate_at_least_zero(params.frequency_scaling, "als", "frequency_scaling");
  if (params.dual_entries < -1) fail("als: dual_entries must be at least -1; got ", params.dual_entries);
  if (params.cg_steps < 1) fail("als: cg_steps must be at least 1; got ", params.cg_steps);
  if (params.biases && params.objective == AlsObjective::kImplicit) {
    fail("als: biases must be false where objective is 'implicit'; got true");
  }
}

/// A matrix with values whose rows can be ids.
void validate_sparse_values(const CsrView& csr, const char* op, const char* argument, int num_threads,
                            Order order = Order::kAscending) {
  if (csr.rows > std::numeric_limits<std::int32_t>::max()) {
    fail(op, ": ", argument, " must have at most 2147483647 rows; got ", csr.rows);
  }
  if (csr.values == nullptr) fail(op, ": ", argument, " must have values; got a pattern");
  validate_csr(csr, op, argument, num_threads, order);
  validate_finite_values(csr, op, argument, num_threads);
}

void validate_same_columns(const MatrixView<const float>& queries, const MatrixView<const float>& items,
                           const char* op) {
  if (items.cols != queries.cols) {
    fail(op, ": items must have ", queries.cols, " columns like queries; got ", items.cols);
  }
  if (items.rows > std::numeric_limits<std::int32_t>::max()) {
    fail(op, ": items must have at most 2147483647 rows; got ", items.rows);
  }
}

void validate_ids(std::span<const std::int32_t> ids, const char* argument, std::int64_t n_items,
                  const std::string& op) {
  int wrong = 0;  // without branches: what is wrong takes longer to say than that nothing is
  for (const std::int32_t id : ids) wrong |= id < 0 || id >= n_items ? 1 : 0;
  for (std::size_t i = 0; wrong != 0; ++i) {
    if (ids[i] >= 0 && ids[i] < n_items) continue;
    fail<std::out_of_range>(op, ": ", argument, "[", i, "] must be in [0, ", n_items, "); got ", ids[i]);
  }
}

void validate_out(const TopkOut& out, std::int64_t rows, std::int64_t k, const std::string& op) {
  if (out.ids.rows == rows && out.ids.cols == k && out.scores.rows == rows && out.scores.cols == k) return;
  fail(op, ": out must have shape ", shape(rows, k), " twice; got ", shape(out.ids.rows, out.ids.cols), " and ",
       shape(out.scores.rows, out.scores.cols));
}

template <class T>
void validate_shapes(const AlsFactors<T>& factors, const AlsParams& params, std::int64_t n_users,
                     std::int64_t n_items) {
  const auto check = [&](const MatrixView<T>& matrix, std::span<T> biases, std::int64_t rows, const char* noun) {
    if (matrix.rows != rows || matrix.cols != params.factors) {
      fail("als: ", noun, "_factors must have shape ", shape(rows, params.factors), "; got ",
           shape(matrix.rows, matrix.cols));
    }
    const auto size = static_cast<std::int64_t>(biases.size());
    if (size != 0 && (!params.biases || size != rows)) {
      fail("als: ", noun, "_biases must have ", params.biases ? rows : 0, " elements; got ", size);
    }
  };
  check(factors.users, factors.user_biases, n_users, "user");
  check(factors.items, factors.item_biases, n_items, "item");
}

void validate_finite(const MatrixView<const float>& matrix, std::span<const float> biases, const char* noun) {
  for (std::int64_t i = 0; i < matrix.rows; ++i) {
    for (std::int64_t j = 0; j < matrix.cols; ++j) {
      if (std::isfinite(matrix.row(i)[j])) continue;
      fail("als: ", noun, "_factors must be finite; got ", matrix.row(i)[j], " at [", i, ", ", j, "]");
    }
  }
  for (std::size_t i = 0; i < biases.size(); ++i) {
    if (!std::isfinite(biases[i])) fail("als: ", noun, "_biases must be finite; got ", biases[i], " at [", i, "]");
  }
}

}  // namespace

void validate_num_threads(int num_threads, const std::string& op) {
  if (num_threads < 0) fail(op, ": num_threads must be at least 0; got ", num_threads);
}

/// What validate_csr() demands, in loops without branches.
bool rows_are_valid(const CsrView& csr, Order order, int num_threads) {
  return all_valid(csr.rows, csr.nnz(), num_threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      if (csr.row_size(row) < 0) return false;
      const std::span columns(csr.row_indices(row), static_cast<std::size_t>(csr.row_size(row)));
      if (order == Order::kAscending ? !ascends_within(columns, csr.cols) : !lies_within(columns, csr.cols))
        return false;
    }
    return true;
  });
}

template <class Index>
bool is_canonical_csr(std::span<const Index> indptr, std::span<const Index> indices, std::int64_t rows,
                      std::int64_t cols, int num_threads) {
  if (static_cast<std::int64_t>(indptr.size()) != rows + 1 || indptr.front() != 0) return false;
  const auto n_entries = static_cast<std::int64_t>(indices.size());
  return all_valid(rows, n_entries, num_threads, [&](std::int64_t first, std::int64_t last) {
    for (auto row = static_cast<std::size_t>(first); row < static_cast<std::size_t>(last); ++row) {
      const std::int64_t begin = indptr[row], end = indptr[row + 1];
      if (begin < 0 || end < begin || end > n_entries) return false;
      const auto columns = indices.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
      if (!ascends_within(columns, cols)) return false;
    }
    return true;
  });
}
template bool is_canonical_csr(std::span<const std::int32_t>, std::span<const std::int32_t>, std::int64_t, std::int64_t,
                               int);
template bool is_canonical_csr(std::span<const std::int64_t>, std::span<const std::int64_t>, std::int64_t, std::int64_t,
                               int);

void validate_csr(const CsrView& csr, const std::string& op, const char* argument, int num_threads, Order order) {
  if (rows_are_valid(csr, order, num_threads)) return;  // what is wrong takes longer to say than that nothing is
  for (std::int64_t row = 0; row < csr.rows; ++row) {
    const std::int64_t begin = csr.indptr[row], end = csr.indptr[row + 1];
    if (end < begin) fail(op, ": ", argument, ".indptr must not decrease; got ", end, " after ", begin);
    for (std::int64_t j = begin; j < end; ++j) {
      const std::int32_t column = csr.indices[j];
      if (column < 0 || column >= csr.cols) {
        fail<std::out_of_range>(op, ": ", argument, " must have column indices in [0, ", csr.cols, "); got ", column,
                                " in row ", row);
      }
      if (order == Order::kAscending && j > begin && csr.indices[j - 1] >= column) {
        fail(op, ": ", argument, " must have ascending column indices without repeats; got ", column, " after ",
             csr.indices[j - 1], " in row ", row);
      }
    }
  }
}

void validate(const FusedItemsArgs& args) {
  if (args.items.empty()) fail(args.op, ": items must have at least 1 modality; got 0");
  const std::int64_t n_items = args.items[0].rows;
  if (n_items > std::numeric_limits<std::int32_t>::max()) {
    fail(args.op, ": items must have at most 2147483647 rows; got ", n_items);
  }
  for (std::size_t m = 0; m < args.items.size(); ++m) {
    if (args.items[m].rows != n_items) {
      fail(args.op, ": ", modality_of("items", args, m), " must have ", n_items, " rows like ",
           modality_of("items", args, 0), "; got ", args.items[m].rows);
    }
    if (args.items[m].cols < 1)
      fail(args.op, ": ", modality_of("items", args, m), " must have at least 1 column; got 0");
  }
  const auto n_modalities = static_cast<std::int64_t>(args.items.size());
  if (args.present.data != nullptr && (args.present.rows != n_items || args.present.cols != n_modalities)) {
    fail(args.op, ": present must have shape ", shape(n_items, n_modalities), " (items, modalities); got ",
         shape(args.present.rows, args.present.cols));
  }
  validate_num_threads(args.num_threads, args.op);
}

void validate(const FuseTopkArgs& args, const FusedItemsArgs& items, const TopkOut& out, MatrixView<double> parts) {
  validate_queries(args, items);
  const auto n_modalities = static_cast<std::int64_t>(items.items.size());
  const std::int64_t n_queries = args.queries[0].rows, n_items = items.items[0].rows;
  if (args.k < 1) fail(items.op, ": k must be at least 1; got ", args.k);
  validate_filter(args.exclude, items.op, "exclude", n_queries, n_items, args.num_threads);
  validate_filter(args.allow, items.op, "allow", n_queries, n_items, args.num_threads);
  validate_ids(args.allow_ids, "allow", n_items, items.op);
  validate_out(out, n_queries, args.k, items.op);
  if (parts.data != nullptr && (parts.rows != n_queries || parts.cols != args.k * n_modalities)) {
    fail(items.op, ": parts must have shape ", shape(n_queries, args.k * n_modalities), "; got ",
         shape(parts.rows, parts.cols));
  }
}

void validate_pairs(const FuseTopkArgs& args, const FusedItemsArgs& items, const CsrView& pairs) {
  validate_queries(args, items);
  validate_filter(pairs, items.op, "pairs", args.queries[0].rows, items.items[0].rows, args.num_threads);
}

void validate_ranks(const FuseTopkArgs& args, const FusedItemsArgs& items, const CsrView& pairs, const PairRanks& out) {
  validate_pairs(args, items, pairs);
  validate_filter(args.exclude, items.op, "exclude", args.queries[0].rows, items.items[0].rows, args.num_threads);
  const auto n_pairs = static_cast<std::size_t>(pairs.nnz()), n_queries = static_cast<std::size_t>(pairs.rows);
  if (out.rank.size() != n_pairs || out.first.size() != n_pairs || out.last.size() != n_pairs ||
      out.n_ranked.size() != n_queries) {
    fail(items.op, ": out must have room for ", n_pairs, " pairs of ", n_queries, " queries; got ", out.rank.size(),
         " and ", out.n_ranked.size());
  }
}

void validate(const CsrView& user_items, const AlsParams& params, int num_threads) {
  validate(params);
  validate_num_threads(num_threads, "als");
  validate_sparse_values(user_items, "als", "user_items", num_threads);
}

void validate(const AlsFactors<const float>& factors, const AlsParams& params, std::int64_t n_users,
              std::int64_t n_items) {
  validate_shapes(factors, params, n_users, n_items);
  validate_finite(factors.users, factors.user_biases, "user");
  validate_finite(factors.items, factors.item_biases, "item");
}

void validate(const AlsFactors<float>& out, const AlsParams& params, std::int64_t n_users, std::int64_t n_items) {
  validate_shapes(out, params, n_users, n_items);
}

void validate_fold_in(const CsrView& user_items, const MatrixView<float>& factors, std::span<const float> biases,
                      const AlsParams& params, std::int64_t n_items, int num_threads) {
  validate_num_threads(num_threads, "als");
  if (user_items.cols != n_items) {
    fail("als: user_items must have ", n_items, " columns like the fitted one; got ", user_items.cols);
  }
  validate_sparse_values(user_items, "als", "user_items", num_threads);
  if (factors.rows != user_items.rows || factors.cols != params.factors) {
    fail("als: factors must have shape ", shape(user_items.rows, params.factors), "; got ",
         shape(factors.rows, factors.cols));
  }
  const auto n_biases = static_cast<std::int64_t>(biases.size());
  if (n_biases != 0 && (!params.biases || n_biases != user_items.rows)) {
    fail("als: biases must have ", params.biases ? user_items.rows : 0, " elements; got ", n_biases);
  }
}

void validate_penalties(std::span<const double> penalties, const AlsParams& params) {
  for (const double penalty : penalties) {
    if (std::isfinite(penalty)) continue;
    fail("als: frequency_scaling must keep the regularization of every row finite; got ", params.frequency_scaling);
  }
}

void validate(const CosineKnnArgs& args, const TopkOut& out) {
  const char* const op = "cosine_knn";
  if (args.k < 1) fail(op, ": k must be at least 1; got ", args.k);
  if (args.min_support < 1) fail(op, ": min_support must be at least 1; got ", args.min_support);
  validate_at_least_zero(args.shrinkage, op, "shrinkage");
  validate_num_threads(args.num_threads, op);
  validate_sparse_values(args.matrix, op, "matrix", args.num_threads);
  validate_out(out, args.matrix.rows, args.k, op);
}

void validate_neighbours(const CsrView& neighbours, int num_threads) {
  validate_sparse_values(neighbours, "neighbour_topk", "neighbours", num_threads,
                         Order::kAny);  // best first, as cosine_knn has them
}

void validate_histories(const CsrView& histories, const CsrView& neighbours, int num_threads) {
  const char* const op = "neighbour_topk";
  if (histories.cols != neighbours.rows) {
    fail(op, ": user_items must have ", neighbours.rows, " columns; got ", histories.cols);
  }
  validate_sparse_values(histories, op, "user_items", num_threads);
}

void validate_history(const CsrView& history, const CsrView& neighbours, std::span<const std::int32_t> exclude,
                      const TopkOut& out) {
  const char* const op = "neighbour_topk";
  if (out.ids.cols < 1) fail(op, ": k must be at least 1; got ", out.ids.cols);
  if (history.rows != 1) fail(op, ": user_items must have 1 row; got ", history.rows);
  validate_histories(history, neighbours, 1);
  validate_ids(exclude, "exclude", neighbours.cols, op);
  validate_out(out, 1, out.ids.cols, op);
}

void validate(const NearestCandidatesArgs& args, const TopkOut& out) {
  const char* const op = "nearest_candidates";
  validate_num_threads(args.num_threads, op);
  validate_same_columns(args.queries, args.items, op);
  if (args.candidates.rows != args.queries.rows) {
    fail(op, ": candidates must have ", args.queries.rows, " rows like queries; got ", args.candidates.rows);
  }
  for (std::int64_t q = 0; q < args.candidates.rows; ++q) {
    for (std::int64_t j = 0; j < args.candidates.cols; ++j) {
      const std::int32_t id = args.candidates.row(q)[j];
      if (id >= -1 && id < args.items.rows) continue;
      fail<std::out_of_range>(op, ": candidates must be in [-1, ", args.items.rows, "); got ", id);
    }
  }
  if (out.ids.cols < 1) fail(op, ": k must be at least 1; got ", out.ids.cols);
  validate_out(out, args.queries.rows, out.ids.cols, op);
}

void validate(const RowsInRangeArgs& args) {
  const char* const op = "rows_in_range";
  validate_num_threads(args.num_threads, op);
  validate_same_columns(args.queries, args.items, op);
  if (std::isnan(args.limit)) fail(op, ": limit must be a number; got nan");
}

template <class T>
void validate(const SparseProductArgs<T>& args) {
  const char* const op = "sparse_product_topk";
  if (args.k < 1) fail(op, ": k must be at least 1; got ", args.k);
  validate_num_threads(args.num_threads, op);
  if (args.left.cols != args.right.rows) {
    fail(op, ": right must have ", args.left.cols, " rows, as many as left has columns; got ", args.right.rows);
  }
  if (args.above && std::isnan(*args.above)) fail(op, ": above must be a number; got nan");
  for (const auto& [name, csr, values] :
       {std::tuple("left", args.left, args.left_values), std::tuple("right", args.right, args.right_values)}) {
    validate_csr(csr, op, name, args.num_threads);
    const std::int64_t stored = csr.indptr[csr.rows];
    if (static_cast<std::int64_t>(values.size()) != stored) {
      fail(op, ": ", name, "_values must have ", stored, " elements; got ", values.size());
    }
    for (const T value : values) {
      if (!std::isfinite(value)) fail(op, ": ", name, "_values must be finite; got ", value);
    }
  }
}
template void validate(const SparseProductArgs<float>&);
template void validate(const SparseProductArgs<double>&);

void validate(const NeighbourTopkArgs& args, const TopkOut& out) {
  const char* const op = "neighbour_topk";
  if (args.k < 1) fail(op, ": k must be at least 1; got ", args.k);
  validate_num_threads(args.num_threads, op);
  validate_histories(args.queries, args.neighbours, args.num_threads);
  validate_neighbours(args.neighbours, args.num_threads);
  validate_filter(args.exclude, op, "exclude", args.queries.rows, args.neighbours.cols, args.num_threads);
  validate_filter(args.allow, op, "allow", args.queries.rows, args.neighbours.cols, args.num_threads);
  validate_ids(args.allow_ids, "allow", args.neighbours.cols, op);
  validate_out(out, args.queries.rows, args.k, op);
}

}  // namespace recfuse
