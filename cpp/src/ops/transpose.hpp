// The other orientation of a sparse matrix.
#pragma once

#include <cstdint>
#include <vector>

#include "recfuse/views.hpp"

namespace recfuse {

struct OwnedCsr {
  std::vector<std::int64_t> indptr;
  std::vector<std::int32_t> indices;
  std::vector<float> values;
  std::int64_t rows = 0;
  std::int64_t cols = 0;

  CsrView view() const { return {indptr.data(), indices.data(), values.data(), rows, cols}; }
};

/// Needs a valid matrix with values and fewer than 2^31 rows.
OwnedCsr transpose(const CsrView& csr, int num_threads);

}  // namespace recfuse
