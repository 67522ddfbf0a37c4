// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace recfuse {

class Sha256 {
 public:
  void add(std::span<const std::byte> bytes);
  /// Of all that was added, in hexadecimal; to be asked once.
  std::string hex_digest();

 private:
  void add_block(const std::byte* block);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> rest_{};  // of a block that is not full yet
  std::size_t n_rest_ = 0;
  std::uint64_t n_bytes_ = 0;
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace recfuse
