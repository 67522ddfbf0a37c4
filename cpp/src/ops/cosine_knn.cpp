#include "recfuse/cosine_knn.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "ops/exact_topk.hpp"
#include "ops/transpose.hpp"
#include "parallel_for.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kRunsPerJob = 512;  // runs of rows of about equal cost, whatever the number of threads

/// Sums per column, with the list of the columns that were reached.
class Accumulator {
 public:
  explicit Accumulator(std::int64_t n) : sums_(static_cast<std::size_t>(n)), shared_(static_cast<std::size_t>(n)) {}

  void add(std::int32_t id, double value) {
    if (shared_[at(id)]++ == 0) reached_.push_back(id);
    sums_[at(id)] += value;
  }
  double sum(std::int32_t id) const { return sums_[at(id)]; }
  std::int64_t shared(std::int32_t id) const { return shared_[at(id)]; }
  const std::vector<std::int32_t>& reached() const { return reached_; }

  void clear() {
    for (const std::int32_t id : reached_) {
      sums_[at(id)] = 0;
      shared_[at(id)] = 0;
    }
    reached_.clear();
  }

 private:
  static std::size_t at(std::int32_t id) { return static_cast<std::size_t>(id); }

  std::vector<double> sums_;
  std::vector<std::uint32_t> shared_;
  std::vector<std::int32_t> reached_;
};

/// Bounds of runs of rows with about equal cost, where cost(row) sums up over the entries of the row.
template <class Cost>
std::vector<std::int64_t> runs_of_equal_cost(const CsrView& csr, const Cost& cost_of_entry) {
  std::vector<std::int64_t> total(static_cast<std::size_t>(csr.rows) + 1, 0);
  for (std::int64_t row = 0; row < csr.rows; ++row) {
    std::int64_t cost = 1;
    for (std::int64_t j = csr.indptr[row]; j < csr.indptr[row + 1]; ++j) cost += cost_of_entry(csr.indices[j]);
    total[static_cast<std::size_t>(row) + 1] = total[static_cast<std::size_t>(row)] + cost;
  }
  std::vector<std::int64_t> bounds{0};
  for (std::int64_t run = 1; run <= kRunsPerJob; ++run) {
    const std::int64_t target = total.back() / kRunsPerJob * run;
    const auto row = std::lower_bound(total.begin(), total.end() - 1, target) - total.begin();
    if (row > bounds.back()) bounds.push_back(row);
  }
  if (bounds.back() != csr.rows) bounds.push_back(csr.rows);
  return bounds;
}

/// Calls body(row, worker's state) for every row, runs of equal cost at a time.
template <class State, class Make, class Body>
void for_rows(const std::vector<std::int64_t>& bounds, int num_threads, const Make& make, const Body& body) {
  const auto n_runs = static_cast<std::int64_t>(bounds.size()) - 1;
  std::vector<std::unique_ptr<State>> states(static_cast<std::size_t>(plan_workers(n_runs, num_threads)));
  parallel_for(n_runs, num_threads, [&](std::int64_t run, int worker) {
    auto& state = states[static_cast<std::size_t>(worker)];
    if (!state) state = make();
    for (std::int64_t row = bounds[static_cast<std::size_t>(run)]; row < bounds[static_cast<std::size_t>(run) + 1];
         ++row) {
      body(row, *state);
    }
  });
}

std::vector<double> squared_norms(const CsrView& csr) {
  std::vector<double> norms(static_cast<std::size_t>(csr.rows), 0.0);
  for (std::int64_t row = 0; row < csr.rows; ++row) {
    for (std::int64_t j = csr.indptr[row]; j < csr.indptr[row + 1]; ++j) {
      norms[static_cast<std::size_t>(row)] += static_cast<double>(csr.values[j]) * csr.values[j];
    }
  }
  return norms;
}

/// What one worker sums up for a row: dot products, and for co-rated norms the two squared norms.
struct RowSums {
  Accumulator dots;
  Accumulator own;
  Accumulator other;

  RowSums(std::int64_t n, bool corated) : dots(n), own(corated ? n : 0), other(corated ? n : 0) {}
};

void add_row(const CsrView& matrix, const CsrView& columns, std::int64_t row, bool corated, RowSums& sums) {
  for (std::int64_t j = matrix.indptr[row]; j < matrix.indptr[row + 1]; ++j) {
    const double own = matrix.values[j];
    const std::int64_t column = matrix.indices[j];
    for (std::int64_t i = columns.indptr[column]; i < columns.indptr[column + 1]; ++i) {
      const double other = columns.values[i];
      sums.dots.add(columns.indices[i], own * other);
      if (corated) {
        sums.own.add(columns.indices[i], own * own);
        sums.other.add(columns.indices[i], other * other);
      }
    }
  }
}

}  // namespace

void cosine_knn(const CosineKnnArgs& args, const TopkOut& out) {
  validate(args, out);
  const bool corated = args.norm == Norm::kCorated;
  const OwnedCsr transposed = transpose(args.matrix, args.num_threads);
  const CsrView columns = transposed.view();
  const std::vector<double> norms = squared_norms(args.matrix);
  const auto bounds = runs_of_equal_cost(args.matrix, [&](std::int32_t column) { return columns.row_size(column); });
  for_rows<RowSums>(
      bounds, args.num_threads, [&] { return std::make_unique<RowSums>(args.matrix.rows, corated); },
      [&](std::int64_t row, RowSums& sums) {
        add_row(args.matrix, columns, row, corated, sums);
        ExactTopk best(args.k);
        for (const std::int32_t other : sums.dots.reached()) {
          if (other == row || sums.dots.shared(other) < args.min_support) continue;
          const double own_norm = corated ? sums.own.sum(other) : norms[static_cast<std::size_t>(row)];
          const double other_norm = corated ? sums.other.sum(other) : norms[static_cast<std::size_t>(other)];
          best.push(cosine(sums.dots.sum(other), own_norm, other_norm, args.shrinkage), other);
        }
        best.write(row, out);
        sums.dots.clear();
        sums.own.clear();
        sums.other.clear();
      });
}

void neighbour_topk(const NeighbourTopkArgs& args, const TopkOut& out) {
  validate(args, out);
  const Filters filters{args.exclude, args.allow};
  const auto bounds = runs_of_equal_cost(args.queries, [&](std::int32_t row) { return args.neighbours.row_size(row); });
  for_rows<Accumulator>(
      bounds, args.num_threads, [&] { return std::make_unique<Accumulator>(args.neighbours.cols); },
      [&](std::int64_t query, Accumulator& sums) {
        for (std::int64_t j = args.queries.indptr[query]; j < args.queries.indptr[query + 1]; ++j) {
          const double strength = args.queries.values[j];
          const std::int64_t row = args.queries.indices[j];
          for (std::int64_t i = args.neighbours.indptr[row]; i < args.neighbours.indptr[row + 1]; ++i) {
            sums.add(args.neighbours.indices[i], strength * args.neighbours.values[i]);
          }
        }
        ExactTopk best(args.k);
        for (const std::int32_t id : sums.reached()) {
          if (filters.admit(query, id)) best.push(static_cast<float>(sums.sum(id)), id);
        }
        best.write(query, out);
        sums.clear();
      });
}

}  // namespace recfuse
