// Runs where there is no GPU, too: every op says why it cannot.
#include <array>
#include <cstdio>
#include <functional>
#include <recfuse/cuda/als.hpp>
#include <recfuse/cuda/cosine_knn.hpp>
#include <recfuse/cuda/device.hpp>
#include <recfuse/cuda/fuse_topk.hpp>
#include <recfuse/errors.hpp>
#include <string>
#include <utility>

namespace {

bool search() {
  const std::array<float, 2> query{2, 1};
  const std::array<float, 6> items{1, 0, 0, 1, 1, 1};
  const std::array<double, 1> weight{1};
  const std::array<recfuse::MatrixView<const float>, 1> x{{{items.data(), 3, 2}}}, q{{{query.data(), 1, 2}}};
  std::array<std::int32_t, 2> ids{};
  std::array<float, 2> scores{};
  const recfuse::cuda::FusedIndex index({.items = x, .metric = recfuse::Metric::kDot});
  index.topk({.queries = q, .weights = {weight.data(), 1, 1}, .k = 2}, {{ids.data(), 1, 2}, {scores.data(), 1, 2}});
  return ids == std::array<std::int32_t, 2>{2, 0} && scores == std::array<float, 2>{3, 2};
}

// Two rows with the same column, and one with another.
constexpr std::array<std::int64_t, 4> kIndptr{0, 1, 2, 3};
constexpr std::array<std::int32_t, 3> kIndices{0, 0, 1};
constexpr std::array<float, 3> kValues{1, 1, 1};
constexpr recfuse::CsrView kRows{kIndptr.data(), kIndices.data(), kValues.data(), 3, 2};

bool similar_rows() {
  std::array<std::int32_t, 3> ids{};
  std::array<float, 3> scores{};
  recfuse::cuda::cosine_knn({.matrix = kRows, .k = 1}, {{ids.data(), 3, 1}, {scores.data(), 3, 1}});
  return ids == std::array<std::int32_t, 3>{1, 0, -1};
}

bool als() {
  const std::array<float, 3> users{1, 2, 3};
  const std::array<float, 2> items{1, 2};
  recfuse::cuda::AlsSolver solver(kRows, {.factors = 1});
  solver.set_factors({.users = {users.data(), 3, 1}, .items = {items.data(), 2, 1}});
  solver.step();
  return solver.finished_steps() == 1;
}

}  // namespace

int main() {
  const std::string why = recfuse::cuda::unusable_reason();
  const std::array<std::pair<const char*, std::function<bool()>>, 3> ops{
      {{"search", search}, {"similar rows", similar_rows}, {"als", als}}};
  int wrong = 0;
  for (const auto& [name, run] : ops) {
    bool good = false;
    try {
      good = run();
      std::printf("%s on %s: %s\n", name, recfuse::cuda::device_name(0).c_str(), good ? "right" : "wrong");
    } catch (const recfuse::DeviceError& error) {
      good = !why.empty();
      std::printf("%s, %d devices: %s\n", name, recfuse::cuda::device_count(), error.what());
    }
    if (!good) ++wrong;
  }
  return wrong;
}
