#include "recfuse/sparse_pairs.hpp"

#include <algorithm>
#include <vector>

#include "parallel_for.hpp"
#include "validate.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kRows = 64;  // of `left` in a chunk

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

void shared_products(const SharedProductsArgs& args, std::span<double> products, std::span<std::int32_t> first) {
  validate(args);
  const CsrView &left = args.left, &right = args.right, &pairs = args.pairs;
  const std::int64_t n_chunks = (left.rows + kRows - 1) / kRows;
  // Where the entry of a column is in the row of `left`, -1 where there is none: so a pair costs its other row alone.
  std::vector<std::vector<std::int64_t>> places(at(plan_workers(n_chunks, args.num_threads)));
  parallel_for(n_chunks, args.num_threads, [&](std::int64_t chunk, int worker) {
    std::vector<std::int64_t>& place = places[at(worker)];
    place.resize(at(left.cols), -1);
    for (std::int64_t row = chunk * kRows; row < std::min(left.rows, (chunk + 1) * kRows); ++row) {
      if (pairs.row_size(row) == 0) continue;
      for (std::int64_t e = left.indptr[row]; e < left.indptr[row + 1]; ++e) place[at(left.indices[e])] = e;
      for (std::int64_t p = pairs.indptr[row]; p < pairs.indptr[row + 1]; ++p) {
        const std::int32_t other = pairs.indices[p];
        double sum = 0;
        std::int32_t least = -1;
        for (std::int64_t e = right.indptr[other]; e < right.indptr[other + 1]; ++e) {
          const std::int64_t here = place[at(right.indices[e])];
          if (here < 0) continue;
          if (least < 0) least = right.indices[e];
          sum += args.left_values[at(here)] * args.right_values[at(e)];
        }
        products[at(p)] = sum;
        first[at(p)] = least;
      }
      for (std::int64_t e = left.indptr[row]; e < left.indptr[row + 1]; ++e) place[at(left.indices[e])] = -1;
    }
  });
}

}  // namespace recfuse
