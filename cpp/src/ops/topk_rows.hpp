// The largest keys of each of many rows, in one table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "aligned.hpp"
#include "kernels/table.hpp"

namespace recfuse {

/// What a score must reach to be worth a closer look, where `worst` is the least of the k best so far: a little below
/// it, -max before there are k. No rounding on the way to a score, in float32 or float64, makes up for 2^-19, and no
/// score so small that the difference would round away is held back. Finite, so that it can be multiplied.
float screening_threshold(float worst);
/// Where nothing is held back.
float no_threshold();

/// Which keys a row is given, and in which order, does not change which k are its largest.
class TopkRows {
 public:
  TopkRows(std::size_t n_rows, std::size_t k, const kernels::KernelTable& kernels);

  /// Keys of a row differ. Returns whether the row knows a new threshold.
  bool push(std::size_t row, std::uint64_t key) {
    State& state = states_[row];
    if (key <= state.beyond) return false;  // NaN has key 0
    keys_[row * room_ + state.n++] = key;
    // The first k tell the first threshold; later ones come with every shrinking.
    if (state.n != k_ && state.n != room_) return false;
    shrink(row);
    return true;
  }
  void prefetch_state(std::size_t row) const { __builtin_prefetch(&states_[row], 1); }
  /// Where the next key goes, or all of them if it makes the row shrink.
  void prefetch_end(std::size_t row) const {
    const std::uint64_t n = states_[row].n;
    const std::uint64_t* const keys = &keys_[row * room_];
    __builtin_prefetch(keys + n, 1);
    if (n + 1 != room_ && n + 1 != k_) return;
    for (std::size_t key = 0; key < n; key += 8) __builtin_prefetch(keys + key, 1);
  }

  /// Keys of a row are at most so many.
  std::size_t room() const { return room_; }
  float threshold(std::size_t row) const;
  /// Among these are the k largest.
  std::span<const std::uint64_t> keys(std::size_t row) const { return {keys_.data() + row * room_, states_[row].n}; }
  /// The k largest, in order.
  void sort(std::size_t row, std::vector<std::uint64_t>& sorted);
  void shrink(std::size_t row);
  void clear(std::size_t row) { states_[row] = {}; }

 private:
  struct State {
    std::uint64_t beyond = 0;  // keys up to here cannot enter
    std::uint64_t n = 0;
  };

  const kernels::KernelTable& kernels_;
  std::size_t k_;
  std::size_t room_;  // of a row
  Room<std::uint64_t> keys_;
  AlignedVector<State> states_;
};

}  // namespace recfuse
