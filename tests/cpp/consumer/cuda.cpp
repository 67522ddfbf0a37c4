// Runs where there is no GPU, too: the search says why it cannot.
#include <array>
#include <cstdio>
#include <recfuse/cuda/als.hpp>
#include <recfuse/cuda/cosine_knn.hpp>
#include <recfuse/cuda/device.hpp>
#include <recfuse/cuda/fuse_topk.hpp>
#include <recfuse/errors.hpp>

int main() {
  const std::array<float, 2> query{2, 1};
  const std::array<float, 6> items{1, 0, 0, 1, 1, 1};
  const std::array<double, 1> weight{1};
  const std::array<recfuse::MatrixView<const float>, 1> x{{{items.data(), 3, 2}}}, q{{{query.data(), 1, 2}}};
  std::array<std::int32_t, 2> ids{};
  std::array<float, 2> scores{};

  const std::string why = recfuse::cuda::unusable_reason();
  try {
    const recfuse::cuda::FusedIndex index({.items = x, .metric = recfuse::Metric::kDot});
    index.topk({.queries = q, .weights = {weight.data(), 1, 1}, .k = 2}, {{ids.data(), 1, 2}, {scores.data(), 1, 2}});
  } catch (const recfuse::DeviceError& error) {
    std::printf("%d devices: %s\n", recfuse::cuda::device_count(), error.what());
    return why.empty() ? 1 : 0;
  }
  std::printf("%s: item %d (%g), item %d (%g)\n", recfuse::cuda::device_name(0).c_str(), ids[0], scores[0], ids[1],
              scores[1]);
  return why.empty() && ids == std::array<std::int32_t, 2>{2, 0} && scores == std::array<float, 2>{3, 2} ? 0 : 1;
}
