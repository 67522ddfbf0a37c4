// The most similar rows of every row of a sparse matrix, each pair of rows met once.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/table.hpp"
#include "ops/pair_lists.hpp"
#include "ops/postings.hpp"
#include "ops/shared_topk.hpp"
#include "recfuse/cosine_knn.hpp"

namespace recfuse {

/// Needs full norms, fewer than 2^32 entries and a k that is small against the number of rows.
class PairSearch {
 public:
  /// `counting`: inner products are sums of whole numbers below 2^31. `squared`: |row|^2.
  PairSearch(const CosineKnnArgs& args, const ValueTraits& traits, const std::vector<double>& squared, bool counting);

  /// Once.
  void run(const TopkOut& out);

 private:
  template <class Sums>
  class Worker;

  template <class MakeSums>
  SharedTopk find_with(const MakeSums& make_sums, std::int64_t run_length) const;
  SharedTopk find_counts() const;
  SharedTopk find_reals() const;

  const CosineKnnArgs& args_;
  const kernels::KernelTable& kernels_;
  const ValueTraits& traits_;
  bool counting_;
  PairLists lists_;
  std::vector<double> squared_;  // by the numbers of the rows
};

}  // namespace recfuse
