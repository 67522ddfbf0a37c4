// The k best neighbours of every row, found by all threads.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "ops/topk_rows.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

/// A neighbour of a row that may be among its best.
struct Neighbour {
  std::uint64_t key;  // ranking_key
  std::uint32_t row;
};

/// Per row the k largest keys of those that the threads have handed in; which thread found one changes nothing.
/// Rows are handled in groups, each under a lock. Takes about 12 bytes for each of k per row.
class SharedTopk {
 public:
  SharedTopk(std::int64_t n_rows, std::int64_t k, const kernels::KernelTable& kernels);

  /// What one thread has found, and thresholds as they were when it last shared.
  class Finds {
   public:
    explicit Finds(const SharedTopk& shared);

    /// There is room for what a row adds at most after share_many(): itself to all others, and its own finds.
    void add(std::uint32_t row, std::uint64_t key) {
      Group& group = groups_[row >> shift_];
      group.finds[group.n++] = {key, row};
    }
    float* thresholds() { return thresholds_.data(); }

   private:
    friend class SharedTopk;
    int shift_;
    struct Group {
      Room<Neighbour> finds;
      std::size_t n = 0;
    };
    std::vector<Group> groups_;
    std::vector<float> thresholds_;
  };

  /// Hands in and forgets the finds, and brings the thresholds of their owner up to date.
  void share(Finds& finds);
  /// The same for groups of rows with so many finds that they would take much memory: to be called after every row.
  void share_many(Finds& finds);
  /// Row `number`, best first, as row `row` of the result; `keys` is room.
  void write(std::int64_t number, std::int64_t row, std::vector<std::uint64_t>& keys, const TopkOut& out);

 private:
  void share_group(Finds& finds, std::size_t group);
  std::size_t n_rows_;
  std::size_t k_;
  int shift_ = 0;
  TopkRows rows_;
  std::vector<float> thresholds_;
  std::vector<std::mutex> locks_;  // one for a group
};

}  // namespace recfuse
