// The ranking key and the canonical dot product, on every special value.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "check.hpp"
#include "isa/dispatch.hpp"
#include "recfuse/canonical.hpp"

namespace {

using Limits = std::numeric_limits<float>;

std::vector<float> special_values() {
  std::vector<float> values{0.0F, Limits::denorm_min(), Limits::min(), 1.0F, Limits::max(), Limits::infinity()};
  for (std::size_t i = 1; i < 5; ++i) {
    values.push_back(std::nextafter(values[i], 0.0F));
    values.push_back(std::nextafter(values[i], Limits::infinity()));
  }
  for (std::size_t i = values.size(); i-- > 0;) values.push_back(-values[i]);
  return values;
}

const std::vector<std::int32_t> kIds{0, 1, 2, 255, 1 << 16, std::numeric_limits<std::int32_t>::max()};

bool before(float a, std::int32_t id_a, float b, std::int32_t id_b) { return a > b || (a == b && id_a < id_b); }

}  // namespace

TEST(key_order_is_score_descending_then_id_ascending) {
  const auto values = special_values();
  for (const float a : values) {
    for (const float b : values) {
      for (const std::int32_t i : kIds) {
        for (const std::int32_t j : kIds) {
          const auto key_a = recfuse::ranking_key(a, i), key_b = recfuse::ranking_key(b, j);
          CHECK((key_a > key_b) == before(a, i, b, j));
          CHECK((key_a == key_b) == (a == b && i == j));
        }
      }
    }
  }
}

TEST(key_gives_back_score_and_id) {
  for (const float score : special_values()) {
    for (const std::int32_t id : kIds) {
      const auto key = recfuse::ranking_key(score, id);
      CHECK(key != 0);
      CHECK(recfuse::key_id(key) == id);
      CHECK(recfuse::key_score(key) == score);
      CHECK(score == 0.0F ||
            std::bit_cast<std::uint32_t>(recfuse::key_score(key)) == std::bit_cast<std::uint32_t>(score));
    }
  }
}

TEST(minus_zero_ranks_and_returns_as_zero) {
  CHECK(recfuse::ranking_key(-0.0F, 3) == recfuse::ranking_key(0.0F, 3));
  CHECK(!std::signbit(recfuse::key_score(recfuse::ranking_key(-0.0F, 3))));
}

TEST(nan_has_the_lowest_key) {
  for (const std::uint32_t bits : {0x7FC00000U, 0xFFC00000U, 0x7F800001U, 0xFFFFFFFFU, 0x7FFFFFFFU}) {
    CHECK(recfuse::ranking_key(std::bit_cast<float>(bits), 0) == 0);
  }
  CHECK(recfuse::ranking_key(-Limits::infinity(), kIds.back()) > 0);
}

TEST(canonical_dot_adds_eight_lanes_in_pairs) {
  // 2^60 and -2^60 in lanes that are added last: a plain sum from the left would lose the small terms.
  std::vector<float> a(19, 1.0F), b(19, 1.0F);
  for (std::size_t n = 0; n <= a.size(); ++n) {
    CHECK(recfuse::canonical_dot(a.data(), b.data(), static_cast<std::int64_t>(n)) == static_cast<double>(n));
  }
  a[0] = 0x1p60F;
  a[8] = -0x1p60F;
  CHECK(recfuse::canonical_dot(a.data(), b.data(), 19) == 17);  // the same lane: they cancel exactly
  a[8] = 1.0F;
  a[1] = -0x1p60F;
  CHECK(recfuse::canonical_dot(a.data(), b.data(), 19) == 0);  // other lanes: the ones beside them are lost
}

TEST(every_kernel_adds_as_canonical_dot_does) {
  constexpr std::size_t kDots = recfuse::kernels::kDots, kMost = 40;
  // Terms of both signs and all sizes: another order is another sum.
  std::vector<std::vector<float>> rows(kDots + 1, std::vector<float>(kMost));
  std::uint32_t state = 1;
  for (auto& row : rows) {
    for (float& x : row) {
      state = state * 1664525 + 1013904223;
      x = std::ldexp(state >> 8 & 1 ? 1.0F : -1.0F, static_cast<int>(state >> 16 & 31)) * (1 + (state >> 24) / 256.0F);
    }
  }
  const std::string before = recfuse::active_isa();
  for (const std::string& isa : recfuse::available_isas()) {
    recfuse::set_isa(isa);
    const auto& kernels = recfuse::kernel_table();
    for (std::size_t n = 0; n <= kMost; ++n) {
      for (const bool shared : {false, true}) {
        const float *a[kDots], *b[kDots];
        double dots[kDots];
        for (std::size_t i = 0; i < kDots; ++i) {
          a[i] = shared ? rows[kDots].data() : rows[(i + 2) % kDots].data();
          b[i] = rows[i].data();
        }
        const auto length = static_cast<std::int64_t>(n);
        kernels.canonical_dots(a, b, length, dots);
        for (std::size_t i = 0; i < kDots; ++i) {
          const double expected = recfuse::canonical_dot(a[i], b[i], length);
          CHECK(dots[i] == expected);
          CHECK(kernels.canonical_dot(a[i], b[i], length) == expected);
        }
      }
    }
  }
  recfuse::set_isa(before);
}

TEST(inverse_norm_of_a_zero_vector_is_zero) {
  CHECK(recfuse::inverse_norm(0.0) == 0.0);
  CHECK(recfuse::inverse_norm(4.0) == 0.5);
  CHECK(std::isnan(recfuse::inverse_norm(std::nan(""))));
}
