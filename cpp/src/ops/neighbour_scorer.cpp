#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "ops/exact_topk.hpp"
#include "recfuse/cosine_knn.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Asks the memory for the neighbours of an item: those of a history lie apart.
void fetch(const CsrView& neighbours, std::int32_t row) {
  constexpr std::int64_t kLine = 16;  // elements
  for (std::int64_t e = neighbours.indptr[row]; e < neighbours.indptr[row + 1]; e += kLine) {
    __builtin_prefetch(neighbours.indices + e);
    __builtin_prefetch(neighbours.values + e);
  }
}

/// Sums of one history. Zero between two uses, so that a call costs what its entries cost.
struct HistorySums {
  explicit HistorySums(std::int64_t n_items) : sums(at(n_items), 0.0), seen(at(n_items), 0) {}

  /// Lists the items that have a term.
  std::span<const std::int32_t> add(const CsrView& neighbours, const CsrView& history);

  std::vector<double> sums;
  std::vector<char> seen;
  std::vector<std::int32_t> items;
};

/// Pointers are held in registers: a byte that is written might be a part of any vector. No branch asks whether an item
/// is new, which is guessed wrong as often as not.
std::span<const std::int32_t> HistorySums::add(const CsrView& neighbours, const CsrView& history) {
  const std::int32_t* const rows = history.row_indices(0);
  const float* const weights = history.row_values(0);
  std::int64_t n_entries = 0;
  for (std::int64_t j = 0; j < history.row_size(0); ++j) {
    fetch(neighbours, rows[j]);
    n_entries += neighbours.row_size(rows[j]);
  }
  if (items.size() < at(n_entries)) items.resize(at(n_entries));
  double* const sum = sums.data();
  char* const known = seen.data();
  std::int32_t* item = items.data();
  for (std::int64_t j = 0; j < history.row_size(0); ++j) {
    const double weight = weights[j];
    const std::int32_t* const ids = neighbours.row_indices(rows[j]);
    const float* const values = neighbours.row_values(rows[j]);
    const std::int64_t n = neighbours.row_size(rows[j]);
    for (std::int64_t e = 0; e < n; ++e) {
      const std::int32_t id = ids[e];
      sum[id] += weight * static_cast<double>(values[e]);
      *item = id;
      item += known[id] == 0 ? 1 : 0;
      known[id] = 1;
    }
  }
  return {items.data(), item};
}

}  // namespace

struct NeighbourScorer::State {
  CsrView neighbours;
  std::mutex mutex;
  std::vector<std::unique_ptr<HistorySums>> idle;  // as many as calls have overlapped

  std::unique_ptr<HistorySums> take() {
    {
      const std::lock_guard lock(mutex);
      if (!idle.empty()) {
        auto sums = std::move(idle.back());
        idle.pop_back();
        return sums;
      }
    }
    return std::make_unique<HistorySums>(neighbours.cols);
  }

  void give_back(std::unique_ptr<HistorySums> sums) {
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(sums));
  }
};

NeighbourScorer::NeighbourScorer(const CsrView& neighbours) : state_(std::make_unique<State>()) {
  validate_neighbours(neighbours, 0);
  state_->neighbours = neighbours;
}
NeighbourScorer::~NeighbourScorer() = default;
NeighbourScorer::NeighbourScorer(NeighbourScorer&&) noexcept = default;
NeighbourScorer& NeighbourScorer::operator=(NeighbourScorer&&) noexcept = default;

void NeighbourScorer::topk(const CsrView& history, std::span<const std::int32_t> exclude, const TopkOut& out) const {
  const CsrView& neighbours = state_->neighbours;
  validate_history(history, neighbours, exclude, out);
  ExactTopk best(out.ids.cols);
  auto own = state_->take();
  const auto items = own->add(neighbours, history);
  double* const sums = own->sums.data();
  char* const seen = own->seen.data();
  for (const std::int32_t id : exclude) seen[id] = 0;
  for (const std::int32_t id : items) {
    if (seen[id] != 0) best.push(static_cast<float>(sums[id]), id);
    sums[id] = 0;
    seen[id] = 0;
  }
  state_->give_back(std::move(own));
  best.write(0, out);
}

}  // namespace recfuse
