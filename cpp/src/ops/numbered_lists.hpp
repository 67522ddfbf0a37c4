// Posting lists whose ids are numbers, those that stand on most lists first.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/table.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

/// The sums that are touched most often then lie in a few cache lines. The values, and their order on a list, stay.
class NumberedLists {
 public:
  explicit NumberedLists(const CsrView& lists);

  kernels::PostingLists lists() const;
  std::int32_t id(std::int32_t number) const { return order_[static_cast<std::size_t>(number)]; }

 private:
  CsrView csr_;
  std::vector<std::int32_t> order_;
  std::vector<std::int32_t> numbers_;          // of the entries
  std::vector<std::uint16_t> narrow_numbers_;  // where they fit: half the bytes
};

}  // namespace recfuse
