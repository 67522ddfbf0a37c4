#include "ops/numbered_lists.hpp"

#include <algorithm>
#include <numeric>

namespace recfuse {

NumberedLists::NumberedLists(const CsrView& lists) : csr_(lists), order_(static_cast<std::size_t>(lists.cols)) {
  const std::int64_t end = lists.indptr[lists.rows];
  std::vector<std::int64_t> sizes(order_.size());
  for (std::int64_t e = lists.indptr[0]; e < end; ++e) ++sizes[static_cast<std::size_t>(lists.indices[e])];
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(), [&](std::int32_t a, std::int32_t b) {
    return sizes[static_cast<std::size_t>(a)] > sizes[static_cast<std::size_t>(b)];
  });
  std::vector<std::int32_t> number(order_.size());
  for (std::size_t i = 0; i < order_.size(); ++i)
    number[static_cast<std::size_t>(order_[i])] = static_cast<std::int32_t>(i);
  const auto fill = [&](auto& numbers) {
    numbers.resize(static_cast<std::size_t>(end));
    for (std::int64_t e = lists.indptr[0]; e < end; ++e) {
      using Number = typename std::remove_reference_t<decltype(numbers)>::value_type;
      numbers[static_cast<std::size_t>(e)] = static_cast<Number>(number[static_cast<std::size_t>(lists.indices[e])]);
    }
  };
  if (lists.cols <= 65536) {
    fill(narrow_numbers_);
  } else {
    fill(numbers_);
  }
}

kernels::PostingLists NumberedLists::lists() const {
  const bool narrow = !narrow_numbers_.empty();
  return {csr_.indptr, narrow ? nullptr : numbers_.data(), narrow ? narrow_numbers_.data() : nullptr, csr_.values,
          nullptr};
}

}  // namespace recfuse
