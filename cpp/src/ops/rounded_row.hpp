// One row, rounded: the words that the panels of a screen interleave.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/table.hpp"

namespace recfuse {

enum class Format { kInt8, kInt16 };

/// Dimensions in a word of 32 bits.
constexpr int per_word(Format format) { return format == Format::kInt8 ? 4 : 2; }

class RoundedRow {
 public:
  RoundedRow(Format format, std::int64_t words)
      : format_(format),
        bytes_(static_cast<std::size_t>(format == Format::kInt8 ? 4 * words : 0)),
        halves_(static_cast<std::size_t>(format == Format::kInt16 ? 2 * words : 0)) {}

  void clear() {
    std::fill(bytes_.begin(), bytes_.end(), std::int8_t{0});
    std::fill(halves_.begin(), halves_.end(), std::int16_t{0});
  }

  /// Rounds n numbers into the words from `first` on; KernelTable says how.
  kernels::RoundedNorms round(const kernels::KernelTable& kernels, const float* x, double scale, const double* centre,
                              double unit, std::int64_t n, std::int64_t first) {
    const auto at = static_cast<std::size_t>(first * per_word(format_));
    if (format_ == Format::kInt8) return kernels.round_to_int8(x, scale, centre, unit, n, &bytes_[at]);
    return kernels.round_to_int16(x, scale, centre, unit, n, &halves_[at]);
  }

  void copy_words(std::int32_t* out) const {
    if (format_ == Format::kInt8) {
      std::memcpy(out, bytes_.data(), bytes_.size());
    } else {
      std::memcpy(out, halves_.data(), 2 * halves_.size());
    }
  }

  const std::vector<std::int8_t>& bytes() const { return bytes_; }

 private:
  Format format_;
  std::vector<std::int8_t> bytes_;
  std::vector<std::int16_t> halves_;
};

}  // namespace recfuse
