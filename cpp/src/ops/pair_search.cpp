#include "ops/pair_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "isa/dispatch.hpp"
#include "ops/byte_blocks.hpp"
#include "ops/exact_topk.hpp"
#include "ops/pair_sums.hpp"
#include "ops/shared_topk.hpp"
#include "parallel_for.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kLongestRun = 128;  // rows that a thread takes at a time, before it shares its finds
constexpr std::int64_t kRunBytes = std::int64_t{16} << 20;  // room for what blocks add to a run of rows,
constexpr std::int64_t kRunEntryBytes = 4;                  // and no more than this for each entry of a small matrix

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

PairValues pair_values(bool counting, const ValueTraits& traits) {
  if (!counting) return PairValues::kReal;
  return traits.all_ones ? PairValues::kNone : PairValues::kWhole;
}

/// Rows in a run: enough to use a block more than once, few enough that no thread waits long for the last one.
std::int64_t run_length(std::int64_t n_rows, std::int64_t nnz, std::int64_t depth) {
  const std::int64_t fits =
      std::min(kRunBytes, kRunEntryBytes * nnz) / (std::max<std::int64_t>(depth, 1) * kernels::kBlockIds * 4);
  return std::clamp<std::int64_t>(std::min(n_rows / 64, fits), 8, kLongestRun);
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
  Worker(const PairSearch& search, Sums&& sums, const SharedTopk& shared, std::int64_t k)
      : search_(search),
        sums_(std::move(sums)),
        k_(k),
        found_(2 * kLastStep + k),
        keys_(found_.ids.size()),
        telling_(found_.ids.size()),
        finds_(shared),
        best_(k) {}

  void run(std::int64_t first, std::int64_t last, SharedTopk& shared) {
    sums_.begin_run(first, last);
    for (std::int64_t number = first; number < last; ++number) {
      search(number);
      shared.share_many(finds_);
    }
    shared.share(finds_);
  }

 private:
  static constexpr std::int64_t kFirstStep = 512;  // ids between two looks at the threshold
  static constexpr std::int64_t kLastStep = 8192;

  void search(std::int64_t number) {
    sums_.add(number);
    float* const thresholds = finds_.thresholds();
    float threshold = screening_threshold(-std::numeric_limits<float>::infinity());
    best_.clear();
    // From the rows of about the same size down to the largest: the former are more alike, and a threshold that is high
    // early holds back more.
    std::int64_t step = kFirstStep, enough = k_ + 1;
    for (std::int64_t last = number, first; last > 0; last = first) {
      first = std::max(sums_.together(last), (last - 1) / step * step);
      step = std::min(kLastStep, 2 * step);
      const std::int64_t seen = found_.n;
      sums_.screen(first, last, threshold, thresholds, found_);
      tell_others(number, seen);
      if (found_.n >= enough) {
        threshold = std::max(threshold, keep_best());
        enough = found_.n + std::max<std::int64_t>(64, k_ / 4);
      }
      if (found_.n < kLastStep) continue;
      // Too close for nearly exact scores to tell apart.
      score_found(number);
      threshold = std::max(threshold, screening_threshold(best_.worst_score()));
    }
    score_found(number);
    thresholds[number] = screening_threshold(best_.worst_score());
    for (const std::uint64_t key : best_.keys()) finds_.add(static_cast<std::uint32_t>(number), key);
  }

  /// Hands those hits from `seen` on that rank for the row that they belong to, to that row.
  void tell_others(std::int64_t number, std::int64_t seen) {
    const float* const thresholds = finds_.thresholds();
    std::int64_t n = 0;
    for (std::int64_t h = seen; h < found_.n; ++h) {
      const std::int32_t other = found_.ids[at(h)];
      telling_[at(n)] = static_cast<std::int32_t>(h);
      n += found_.scores[at(h)] >= thresholds[other];
    }
    for (std::int64_t i = 0; i < n; ++i) {
      constexpr std::int64_t kAhead = 16;
      if (i + kAhead < n) __builtin_prefetch(&search_.squared_[at(found_.ids[at(telling_[at(i + kAhead)])])]);
      const std::int64_t h = telling_[at(i)];
      finds_.add(static_cast<std::uint32_t>(found_.ids[at(h)]), ranking_key(score(number, h), row(number)));
    }
  }

  /// Drops hits that k others surpass; returns what a score must reach to be among the k best of this row.
  float keep_best() {
    if (found_.n <= k_) return screening_threshold(-std::numeric_limits<float>::infinity());
    const float threshold =
        screening_threshold(search_.kernels_.kth_largest(found_.scores.data(), found_.n, k_, keys_.data()));
    std::int64_t kept = 0;
    for (std::int64_t h = 0; h < found_.n; ++h) {
      found_.ids[at(kept)] = found_.ids[at(h)];
      found_.dots[at(kept)] = found_.dots[at(h)];
      found_.scores[at(kept)] = found_.scores[at(h)];
      kept += found_.scores[at(h)] >= threshold;
    }
    found_.n = kept;
    return threshold;
  }

  /// Moves the hits to the exactly scored ones, of which it keeps k.
  void score_found(std::int64_t number) {
    for (std::int64_t h = 0; h < found_.n; ++h) best_.push(score(number, h), row(found_.ids[at(h)]));
    best_.tighten();
    found_.n = 0;
  }

  std::int32_t row(std::int64_t number) const { return search_.lists_.row(number); }
  float score(std::int64_t number, std::int64_t h) const {
    return cosine(sums_.dot(found_.dots[at(h)]), search_.squared_[at(number)], search_.squared_[at(found_.ids[at(h)])],
                  search_.args_.shrinkage);
  }

  const PairSearch& search_;
  Sums sums_;
  std::int64_t k_;
  typename Sums::Found found_;
  std::vector<std::int32_t> keys_;     // room
  std::vector<std::int32_t> telling_;  // room
  SharedTopk::Finds finds_;
  ExactTopk best_;
};

/// Rows in the order of their numbers, so that those before a row, or nearly all of them, know their thresholds.
template <class MakeSums>
void PairSearch::run_with(const MakeSums& make_sums, std::int64_t run_length, const TopkOut& out) const {
  using Own = Worker<decltype(make_sums())>;
  const std::int64_t n_rows = lists_.n_rows();
  SharedTopk shared(n_rows, out.ids.cols);
  const std::int64_t n_runs = (n_rows + run_length - 1) / run_length;
  std::vector<std::unique_ptr<Own>> workers(at(plan_workers(n_runs, args_.num_threads)));
  parallel_for(n_runs, args_.num_threads, [&](std::int64_t run, int worker) {
    auto& own = workers[at(worker)];
    if (!own) own = std::make_unique<Own>(*this, make_sums(), shared, out.ids.cols);
    own->run(run * run_length, std::min(n_rows, (run + 1) * run_length), shared);
  });
  parallel_for(n_runs, args_.num_threads, [&](std::int64_t run, int) {
    const std::int64_t first = run * run_length, last = std::min(n_rows, first + run_length);
    for (std::int64_t number = first; number < last; ++number) shared.write(number, lists_.row(number), out);
  });
}

void PairSearch::run_counts(const TopkOut& out) const {
  const ByteBlocks blocks(lists_, args_.matrix.cols, kernels_, args_.num_threads);
  std::vector<float> norms;
  norms.reserve(squared_.size());
  for (const double squared : squared_) norms.push_back(static_cast<float>(std::sqrt(squared) * traits_.scale));
  run_with(
      [&] { return CountPairs(kernels_, lists_, blocks, norms, traits_.scale, args_.shrinkage, args_.min_support); },
      run_length(lists_.n_rows(), args_.matrix.nnz(), blocks.depth()), out);
}

void PairSearch::run_reals(const TopkOut& out) const {
  std::vector<double> norms;
  norms.reserve(squared_.size());
  for (const double squared : squared_) norms.push_back(std::sqrt(squared));
  const bool support = !traits_.positive || args_.min_support > 1;
  run_with([&] { return RealPairs(kernels_, lists_, norms, args_.shrinkage, support, args_.min_support); },
           run_length(lists_.n_rows(), args_.matrix.nnz(), 0), out);
}

void PairSearch::run(const TopkOut& out) const {
  if (counting_) return run_counts(out);
  run_reals(out);
}

}  // namespace recfuse
