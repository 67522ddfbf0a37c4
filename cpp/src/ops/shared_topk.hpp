// The k best neighbours of every row, found by all threads.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "ops/pair_lists.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

/// A neighbour of a row that may be among its best.
struct Neighbour {
  std::uint64_t key;  // ranking_key
  std::uint32_t row;
};

/// What a score must reach to be worth a closer look, where `worst` is the least of the k best so far: a little below
/// it, -max before there are k. No rounding on the way to a score, in float32 or float64, makes up for 2^-19, and no
/// score so small that the difference would round away is held back. Finite, so that it can be multiplied.
float screening_threshold(float worst);

/// Per row the k largest keys of those that the threads have handed in; which thread found one changes nothing.
/// Rows are handled in groups, each under a lock. Takes about 12 bytes for each of k per row.
class SharedTopk {
 public:
  SharedTopk(std::int64_t n_rows, std::int64_t k);

  /// What one thread has found, and thresholds as they were when it last shared.
  class Finds {
   public:
    explicit Finds(const SharedTopk& shared);

    void add(std::uint32_t row, std::uint64_t key) { groups_[row >> shift_].push_back({key, row}); }
    float* thresholds() { return thresholds_.data(); }

   private:
    friend class SharedTopk;
    int shift_;
    std::vector<std::vector<Neighbour>> groups_;
    std::vector<float> thresholds_;
  };

  /// Hands in and forgets the finds, and brings the thresholds of their owner up to date.
  void share(Finds& finds);
  /// The same for groups of rows with so many finds that they would take much memory: to be called after every row.
  void share_many(Finds& finds);
  /// Row `number`, best first, as row `row` of the result.
  void write(std::int64_t number, std::int64_t row, const TopkOut& out);

 private:
  void share_group(Finds& finds, std::size_t group);
  void push(const Neighbour& find);
  void shrink(std::size_t row);

  std::size_t k_;
  std::size_t room_;
  int shift_ = 0;
  Room<std::uint64_t> keys_;          // room_ for every row
  std::vector<std::uint64_t> worst_;  // keys up to here cannot enter
  std::vector<std::uint32_t> counts_;
  std::vector<float> thresholds_;
  std::vector<std::mutex> locks_;  // one for a group
};

}  // namespace recfuse
