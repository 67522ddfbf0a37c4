#include "recfuse/sparse_product.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <tuple>
#include <type_traits>

#include "isa/dispatch.hpp"
#include "ops/sparse_search.hpp"
#include "parallel_for.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

using kernels::kNoTerm;
using kernels::kProductBlock;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

bool there(double sum) { return !(sum == 0 && std::signbit(sum)); }

/// The pattern of the columns of a matrix.
class Columns {
 public:
  explicit Columns(const CsrView& csr) : ends_(at(csr.cols) + 1), rows_(at(csr.nnz())) {
    const std::int32_t* const indices = csr.indices;
    for (std::int64_t e = csr.indptr[0]; e < csr.indptr[csr.rows]; ++e) ++ends_[at(indices[e]) + 1];
    for (std::size_t c = 1; c < ends_.size(); ++c) ends_[c] += ends_[c - 1];
    std::vector<std::int64_t> next(ends_.begin(), ends_.end() - 1);
    for (std::int64_t row = 0; row < csr.rows; ++row) {
      for (std::int64_t e = csr.indptr[row]; e < csr.indptr[row + 1]; ++e) {
        rows_[at(next[at(indices[e])]++)] = static_cast<std::int32_t>(row);
      }
    }
  }
  /// Ascending.
  std::span<const std::int32_t> rows_of(std::int32_t column) const {
    return std::span(rows_).subspan(at(ends_[at(column)]), at(ends_[at(column) + 1] - ends_[at(column)]));
  }

 private:
  std::vector<std::int64_t> ends_;
  std::vector<std::int32_t> rows_;
};

template <class T>
struct Entry {
  T value;
  std::int32_t id;
};

/// The entries that `worker` has found for a row: `n` from `first` on.
struct Found {
  int worker = 0;
  std::int64_t first = 0;
  std::int64_t n = 0;
};

/// What a thread needs, and what it finds.
template <class T>
class RowProducts {
 public:
  RowProducts(const SparseProductArgs<T>& args, const std::optional<Columns>& columns)
      : args_(args),
        columns_(columns),
        kernels_(kernel_table()),
        lists_{args.right.indptr, args.right.indices, args.right_values.data()},
        sums_(at(args.right.cols), kNoTerm),
        held_(columns ? at(args.left.cols) : 0) {}

  /// Returns where in entries() those of the row begin.
  std::int64_t find(std::int64_t row) {
    const std::span own(args_.left.row_indices(row), at(args_.left.row_size(row)));
    add(own, args_.left_values.data() + args_.left.indptr[row]);
    candidates_.clear();
    std::int64_t n_terms = 0;
    for (const std::int32_t c : own) n_terms += args_.right.row_size(c);
    if (n_terms < args_.right.cols / kEntryCost) {
      gather(own, n_terms);
      collect(gathered_.data(), gathered_ids_.data(), n_gathered_);
    } else {
      collect(sums_.data(), nullptr, args_.right.cols);
      std::fill(sums_.begin(), sums_.end(), kNoTerm);
    }
    choose();
    if (columns_) put_in_order_of_scipy(own);
    const auto first = static_cast<std::int64_t>(entries_.size());
    entries_.insert(entries_.end(), candidates_.begin(), candidates_.end());
    return first;
  }
  const std::vector<Entry<T>>& entries() const { return entries_; }

 private:
  void add(std::span<const std::int32_t> own, const T* weights) {
    const auto n = static_cast<std::int64_t>(own.size());
    if constexpr (std::is_same_v<T, float>) {
      kernels_.add_float_products(lists_, own.data(), weights, n, sums_.data());
    } else {
      kernels_.add_double_products(lists_, own.data(), weights, n, sums_.data());
    }
  }

  /// The sums that have terms side by side, where those are few; clears them.
  void gather(std::span<const std::int32_t> own, std::int64_t n_terms) {
    gathered_.resize(std::max(gathered_.size(), at(n_terms) + 1));
    gathered_ids_.resize(gathered_.size());
    std::size_t n = 0;
    for (const std::int32_t c : own) {
      for (std::int64_t e = args_.right.indptr[c]; e < args_.right.indptr[c + 1]; ++e) {
        const std::int32_t id = args_.right.indices[e];
        gathered_[n] = sums_[at(id)];  // without a branch, which would be guessed wrong
        gathered_ids_[n] = id;
        n += there(gathered_[n]) ? 1 : 0;
        sums_[at(id)] = kNoTerm;
      }
    }
    n_gathered_ = static_cast<std::int64_t>(n);
  }

  /// All entries that can be among the k best, and some more. Where k blocks reach a value, so do k entries: what is
  /// less than the largest of each of k blocks is not among the best.
  void collect(const double* sums, const std::int32_t* ids, std::int64_t n) {
    maxima_.resize(at((n + kProductBlock - 1) / kProductBlock));
    kernels_.block_maxima(sums, n, maxima_.data());
    const double least = least_of_best();
    for (std::size_t block = 0; block < maxima_.size(); ++block) {
      if (maxima_[block] < least) continue;
      const std::int64_t first = static_cast<std::int64_t>(block) * kProductBlock;
      const std::int64_t last = std::min(n, first + kProductBlock);
      std::size_t found = candidates_.size();
      candidates_.resize(found + at(last - first));
      for (std::int64_t i = first; i < last; ++i) {
        candidates_[found] = {static_cast<T>(sums[i]), ids == nullptr ? static_cast<std::int32_t>(i) : ids[i]};
        found += (sums[i] >= least) & there(sums[i]) ? 1 : 0;
      }
      candidates_.resize(found);
    }
  }

  double least_of_best() {
    double least = -std::numeric_limits<double>::infinity();
    if (at(args_.k) <= maxima_.size()) {
      scratch_ = maxima_;
      const auto kth = scratch_.begin() + args_.k - 1;
      std::nth_element(scratch_.begin(), kth, scratch_.end(), std::greater<>());
      least = least_rounding_to(*kth);
    }
    return args_.above ? std::max(least, least_rounding_to(*args_.above)) : least;
  }

  /// A little less than `value` may round to the same, and then the smaller column counts.
  static double least_rounding_to(double value) {
    if constexpr (std::is_same_v<T, double>) return value;
    return std::nextafter(static_cast<float>(value), -kInfinity);
  }

  /// Leaves the k best candidates.
  void choose() {
    if (args_.above) std::erase_if(candidates_, [&](const auto& entry) { return !(entry.value > *args_.above); });
    const auto better = [](const Entry<T>& a, const Entry<T>& b) {
      return a.value != b.value ? a.value > b.value : a.id < b.id;
    };
    if (candidates_.size() > at(args_.k)) {
      std::nth_element(candidates_.begin(), candidates_.begin() + args_.k, candidates_.end(), better);
      candidates_.resize(at(args_.k));
    }
    if (args_.order == ProductOrder::kDescending) std::sort(candidates_.begin(), candidates_.end(), better);
  }

  /// SciPy's lists begin with what was met last, at the first index that row and column share.
  void put_in_order_of_scipy(std::span<const std::int32_t> own) {
    for (const std::int32_t index : own) held_[at(index)] = 1;
    places_.clear();
    for (const Entry<T>& entry : candidates_) {
      const auto rows = columns_->rows_of(entry.id);
      const std::int32_t reached =
          *std::find_if(rows.begin(), rows.end(), [&](auto row) { return held_[at(row)] != 0; });
      places_.push_back({reached, entry.id, entry.value});
    }
    for (const std::int32_t index : own) held_[at(index)] = 0;
    std::sort(places_.begin(), places_.end(),
              [](const auto& a, const auto& b) { return std::tie(a.reached, a.id) > std::tie(b.reached, b.id); });
    std::transform(places_.begin(), places_.end(), candidates_.begin(),
                   [](const Place& place) -> Entry<T> { return {place.value, place.id}; });
  }

  struct Place {
    std::int32_t reached;
    std::int32_t id;
    T value;
  };
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();

  const SparseProductArgs<T>& args_;
  const std::optional<Columns>& columns_;  // where the order of SciPy is asked for
  const kernels::KernelTable& kernels_;
  kernels::ProductLists<T> lists_;
  std::vector<double> sums_;
  std::vector<char> held_;
  std::vector<double> gathered_;
  std::vector<std::int32_t> gathered_ids_;
  std::int64_t n_gathered_ = 0;
  std::vector<double> maxima_;
  std::vector<double> scratch_;
  std::vector<Entry<T>> candidates_;
  std::vector<Place> places_;
  std::vector<Entry<T>> entries_;
};

}  // namespace

template <class T>
SparseProduct<T> sparse_product_topk(const SparseProductArgs<T>& args) {
  validate(args);
  std::optional<Columns> columns;
  if (args.order == ProductOrder::kScipy) columns.emplace(args.right);
  const WorkPlan plan(lookup_work(args.left, args.right.indptr, args.right.cols));
  std::vector<std::unique_ptr<RowProducts<T>>> workers(at(plan_workers(plan.n_runs(), args.num_threads)));
  std::vector<Found> found(at(args.left.rows));
  parallel_for(plan.n_runs(), args.num_threads, [&](std::int64_t run, int worker) {
    auto& own = workers[at(worker)];
    if (!own) own = std::make_unique<RowProducts<T>>(args, columns);
    for (const std::int64_t row : plan.run(run)) {
      const std::int64_t first = own->find(row);
      found[at(row)] = {worker, first, static_cast<std::int64_t>(own->entries().size()) - first};
    }
  });
  SparseProduct<T> result;
  result.indptr.assign(at(args.left.rows) + 1, 0);
  for (std::size_t row = 0; row < found.size(); ++row) result.indptr[row + 1] = result.indptr[row] + found[row].n;
  result.indices.reserve(at(result.indptr.back()));
  result.values.reserve(at(result.indptr.back()));
  for (const Found& row : found) {
    if (row.n == 0) continue;
    const Entry<T>* const entries = workers[at(row.worker)]->entries().data() + row.first;
    for (std::int64_t i = 0; i < row.n; ++i) {
      result.indices.push_back(entries[i].id);
      result.values.push_back(entries[i].value);
    }
  }
  return result;
}

template SparseProduct<float> sparse_product_topk(const SparseProductArgs<float>&);
template SparseProduct<double> sparse_product_topk(const SparseProductArgs<double>&);

}  // namespace recfuse
