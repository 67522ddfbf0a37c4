#include "ops/refused_items.hpp"

#include <algorithm>

#include "isa/dispatch.hpp"

namespace recfuse {

using kernels::kPanelWidth;

void RefusedItems::start(const RoundedItems& items, const CsrView& exclude, std::int64_t first, std::int64_t last) {
  if (first_ == first) return;
  first_ = first;
  const std::uint32_t* const slots = items.slots().data();
  const std::int32_t* const ids = exclude.row_indices(first);
  slots_.resize(static_cast<std::size_t>(exclude.indptr[last] - exclude.indptr[first]));
  for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i] = slots[ids[i]];
  begins_.clear();
  std::size_t longest = 0;
  for (std::int64_t q = first; q <= last; ++q) {
    begins_.push_back(static_cast<std::size_t>(exclude.indptr[q] - exclude.indptr[first]));
    if (q > first) longest = std::max(longest, static_cast<std::size_t>(exclude.row_size(q - 1)));
  }
  places_.resize(longest + kernels::kSpareCandidates);
}

const std::uint32_t* RefusedItems::mark(const RoundedItems& items, std::size_t tile, const std::uint32_t* disallowed,
                                        std::span<const std::int32_t> rows) {
  const std::size_t n_rows = rows.size();
  const std::int64_t first_panel = items.first_panel(tile), n_panels = items.first_panel(tile + 1) - first_panel;
  const auto begin = static_cast<std::uint32_t>(first_panel * kPanelWidth);
  const auto length = static_cast<std::uint32_t>(n_panels * kPanelWidth);
  words_.resize(static_cast<std::size_t>(n_panels) * n_rows);
  if (disallowed == nullptr) {
    std::fill(words_.begin(), words_.end(), 0);
  } else {
    for (std::size_t i = 0; i < words_.size(); ++i) words_[i] = disallowed[i / n_rows];
  }
  const auto places_between = kernel_table().places_between;
  for (std::size_t r = 0; r < n_rows; ++r) {
    const auto row = static_cast<std::size_t>(rows[r]);
    const auto n_excluded = static_cast<std::int64_t>(begins_[row + 1] - begins_[row]);
    const std::int64_t n = places_between(slots_.data() + begins_[row], n_excluded, begin, length, places_.data());
    std::uint32_t* const words = words_.data() + r;
    for (const std::uint32_t place : std::span(places_.data(), static_cast<std::size_t>(n))) {
      words[place / kPanelWidth * n_rows] |= 1U << (place % kPanelWidth);
    }
  }
  return words_.data();
}

}  // namespace recfuse
