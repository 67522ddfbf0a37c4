// What the tests of golden model files share: where those lie, and lists to be filled.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "recfuse/recfuse.hpp"

namespace recfuse::testing {

inline const std::string kFolder = RECFUSE_GOLDEN_FILES;

struct Lists {
  std::vector<std::int32_t> ids;
  std::vector<float> scores;
  std::int64_t n, k;

  Lists(std::int64_t rows, std::int64_t cols)
      : ids(static_cast<std::size_t>(rows * cols)), scores(ids.size()), n(rows), k(cols) {}
  TopkOut out() { return {{ids.data(), n, k}, {scores.data(), n, k}}; }
  bool operator==(const Lists&) const = default;
};

}  // namespace recfuse::testing
