#include "ops/pair_search.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "isa/dispatch.hpp"
#include "ops/byte_blocks.hpp"
#include "ops/pair_sums.hpp"
#include "ops/shared_topk.hpp"
#include "parallel_for.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kLongestRun = 128;        // rows that a thread takes at a time, before it shares its finds,
constexpr std::int64_t kLongestRangesRun = 512;  // where they meet one range of the lists after the other
constexpr std::int64_t kRunBytes = std::int64_t{16} << 20;  // room for what blocks add to a run of rows,
constexpr std::int64_t kRunEntryBytes = 4;                  // and no more than this for each entry of a small matrix

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

PairValues pair_values(bool counting, const ValueTraits& traits) {
  if (!counting) return PairValues::kReal;
  return traits.all_ones ? PairValues::kNone : PairValues::kWhole;
}

/// Rows in a run: enough to use a block, or a range of the lists, more than once, few enough that no thread waits long
/// for the last one.
std::int64_t run_length(const PairLists& lists, std::int64_t depth) {
  const std::int64_t n_rows = lists.n_rows(), nnz = lists.n_entries();
  const std::int64_t fits =
      std::min(kRunBytes, kRunEntryBytes * nnz) / (std::max<std::int64_t>(depth, 1) * kernels::kBlockIds * 4);
  return std::clamp<std::int64_t>(std::min(n_rows / 64, fits), 8,
                                  lists.n_ranges() > 1 ? kLongestRangesRun : kLongestRun);
}

}  // namespace

PairSearch::PairSearch(const CosineKnnArgs& args, const ValueTraits& traits, const std::vector<double>& squared,
                       bool counting)
    : args_(args),
      kernels_(kernel_table()),
      traits_(traits),
      counting_(counting),
      lists_(args.matrix, pair_values(counting, traits), traits.scale, traits.largest * traits.scale,
             args.num_threads) {
  squared_.reserve(at(lists_.n_rows()));
  for (std::int64_t number = 0; number < lists_.n_rows(); ++number) {
    squared_.push_back(squared[at(lists_.row(number))]);
  }
}

/// One thread's view of the search.
template <class Sums>
class PairSearch::Worker {
 public:
  Worker(const PairSearch& search, Sums&& sums, const SharedTopk& shared, std::int64_t k, std::int64_t run_length)
      : search_(search),
        sums_(std::move(sums)),
        own_(most_screened(search.lists_)),
        others_(most_screened(search.lists_)),
        finds_(shared),
        best_(at(search.lists_.n_ranges() > 1 ? run_length : 1), at(k), search.kernels_),
        steps_(at(run_length)) {}

  /// Of several ranges, all rows of the run meet one before they meet the next: what is kept of it stays in the caches.
  void run(std::int64_t first, std::int64_t last, SharedTopk& shared) {
    sums_.begin_run(first, last);
    steps_.assign(steps_.size(), kFirstStep);
    const std::int64_t size = search_.lists_.range_size(), n_ranges = search_.lists_.n_ranges();
    // From the rows of about the same size down to the largest: the former are more alike, and a threshold that is high
    // early holds back more.
    for (std::int64_t range = (last - 1) / size; range >= 0; --range) {
      const std::int64_t begin = range * size;
      for (std::int64_t number = std::max(first, begin); number < last; ++number) {
        const std::size_t slot = n_ranges > 1 ? at(number - first) : 0;
        meet(number, {range, begin, std::min(number, begin + size), number < begin + size}, slot,
             steps_[at(number - first)]);
        finds_.thresholds()[number] = std::max(finds_.thresholds()[number], best_.threshold(slot));
        if (range == 0) hand_in(number, slot);
        shared.share_many(finds_);
      }
    }
    shared.share(finds_);
  }

 private:
  static constexpr std::int64_t kFirstStep = 512;  // ids between two looks at the threshold

  /// `step` grows from one range to the next.
  void meet(std::int64_t number, const MetRange& met, std::size_t slot, std::int64_t& step) {
    sums_.add(number, met);
    for (std::int64_t last = met.end, first; last > met.begin; last = first) {
      first = std::max(sums_.together(last), (last - 1) / step * step);
      step = std::min(kMostScreened, 2 * step);
      auto own = own_.pairs(), others = others_.pairs();
      sums_.screen(first, last, best_.threshold(slot), finds_.thresholds(), own, others);
      for (std::int64_t i = 0; i < others.n; ++i) {
        finds_.add(static_cast<std::uint32_t>(others.ids[i]), others.keys[i]);
      }
      for (std::int64_t i = 0; i < own.n; ++i) best_.push(slot, own.keys[i]);
    }
  }

  void hand_in(std::int64_t number, std::size_t slot) {
    best_.shrink(slot);
    for (const std::uint64_t key : best_.keys(slot)) finds_.add(static_cast<std::uint32_t>(number), key);
    best_.clear(slot);
  }

  const PairSearch& search_;
  Sums sums_;
  PairRoom own_, others_;
  SharedTopk::Finds finds_;
  TopkRows best_;  // of the rows of a run that are not finished
  std::vector<std::int64_t> steps_;
};

/// Rows in the order of their numbers, so that those before a row, or nearly all of them, know their thresholds.
template <class MakeSums>
SharedTopk PairSearch::find_with(const MakeSums& make_sums, std::int64_t run_length) const {
  using Own = Worker<decltype(make_sums())>;
  const std::int64_t n_rows = lists_.n_rows();
  SharedTopk shared(n_rows, args_.k, kernels_);
  const std::int64_t n_runs = (n_rows + run_length - 1) / run_length;
  std::vector<std::unique_ptr<Own>> workers(at(plan_workers(n_runs, args_.num_threads)));
  parallel_for(n_runs, args_.num_threads, [&](std::int64_t run, int worker) {
    auto& own = workers[at(worker)];
    if (!own) own = std::make_unique<Own>(*this, make_sums(), shared, args_.k, run_length);
    own->run(run * run_length, std::min(n_rows, (run + 1) * run_length), shared);
  });
  return shared;
}

SharedTopk PairSearch::find_counts() const {
  const ByteBlocks blocks(lists_, args_.matrix.cols, kernels_, args_.num_threads);
  std::vector<float> norms;
  norms.reserve(squared_.size());
  for (const double squared : squared_) norms.push_back(static_cast<float>(std::sqrt(squared) * traits_.scale));
  return find_with(
      [&] {
        return CountPairs(kernels_, lists_, blocks, norms, squared_, traits_.scale, args_.shrinkage, args_.min_support);
      },
      run_length(lists_, blocks.depth()));
}

SharedTopk PairSearch::find_reals() const {
  std::vector<double> norms;
  norms.reserve(squared_.size());
  for (const double squared : squared_) norms.push_back(std::sqrt(squared));
  const bool support = !traits_.positive || args_.min_support > 1;
  return find_with(
      [&] { return RealPairs(kernels_, lists_, norms, squared_, args_.shrinkage, support, args_.min_support); },
      run_length(lists_, 0));
}

void PairSearch::run(const TopkOut& out) {
  SharedTopk found = counting_ ? find_counts() : find_reals();
  // The result is written to for the first time: into pages that the lists had, not into ones that the system must
  // find.
  lists_.forget_entries();
  const std::int64_t n_runs = (lists_.n_rows() + kLongestRun - 1) / kLongestRun;
  parallel_for(n_runs, args_.num_threads, [&](std::int64_t run, int) {
    std::vector<std::uint64_t> keys;
    const std::int64_t first = run * kLongestRun, last = std::min(lists_.n_rows(), first + kLongestRun);
    for (std::int64_t number = first; number < last; ++number) found.write(number, lists_.row(number), keys, out);
  });
}

}  // namespace recfuse
