// The header of a model file: which arrays lie where, checked against the bytes that there are.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "recfuse/model_file.hpp"

namespace recfuse {

struct StoredHeader {
  int version = 0;
  std::string kind;
  std::string metadata;
  std::vector<StoredArray> arrays;
  std::vector<std::string> checksums;  // of every array; empty in format 1
  std::string checksum;                // of all arrays and gaps, in format 1
  std::span<const std::byte> payload;  // what `checksum` is of
};

/// Throws FormatError. Reads the header, and the few zeros between arrays.
StoredHeader parse_header(std::span<const std::byte> file);

}  // namespace recfuse
