// What several devices count for pairs, and the ranks that it makes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "recfuse/fuse_topk.hpp"

namespace recfuse::cuda {

class CountsOfPairs {
 public:
  CountsOfPairs(std::size_t n_pairs, std::size_t n_queries)
      : before_(n_pairs), better_(n_pairs), tied_(n_pairs), n_ranked_(n_queries) {}

  PairRanks view() { return {before_, better_, tied_, n_ranked_}; }

  CountsOfPairs& operator+=(const CountsOfPairs& other) {
    add(before_, other.before_);
    add(better_, other.better_);
    add(tied_, other.tied_);
    add(n_ranked_, other.n_ranked_);
    return *this;
  }

  void write_ranks(const CsrView& pairs, std::span<const float> scores, const CsrView& exclude,
                   const PairRanks& out) const {
    std::copy(n_ranked_.begin(), n_ranked_.end(), out.n_ranked.begin());
    std::size_t at = 0;
    for (std::int64_t q = 0; q < pairs.rows; ++q) {
      const std::int32_t* const excluded = exclude.given() ? exclude.row_indices(q) : nullptr;
      const std::int32_t* const end = exclude.given() ? excluded + exclude.row_size(q) : nullptr;
      for (std::int64_t j = 0; j < pairs.row_size(q); ++j, ++at) {
        const bool ranked = scores[at] == scores[at] && !std::binary_search(excluded, end, pairs.row_indices(q)[j]);
        out.rank[at] = ranked ? better_[at] + before_[at] + 1 : 0;
        out.first[at] = ranked ? better_[at] + 1 : 0;
        out.last[at] = ranked ? better_[at] + tied_[at] : 0;
      }
    }
  }

 private:
  static void add(std::vector<std::int32_t>& to, const std::vector<std::int32_t>& from) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  }

  std::vector<std::int32_t> before_, better_, tied_, n_ranked_;
};

}  // namespace recfuse::cuda
