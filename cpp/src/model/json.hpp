// JSON of model files: strict, bounded in depth and in the number of values. A large library would be code that nobody
// here reads against hostile input; the part that is wanted is this.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace recfuse {

struct Json {
  enum class Kind { kNull, kBool, kInteger, kReal, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  std::int64_t integer = 0;  // and kBool
  double real = 0;           // of both kinds of numbers; an integer beyond 64 bits is kReal
  std::string text;
  std::vector<Json> items;         // of an array; the values of an object
  std::vector<std::string> names;  // of these values, in their order; none twice

  bool is(Kind k) const { return kind == k; }
  /// Null where there is no such member, or this is no object.
  const Json* find(std::string_view name) const;
};

/// Throws FormatError for what is not JSON, is deeper than 128, has more than 2^20 values or an integer of more than
/// 1,000 digits. UTF-8 without lone surrogates.
Json parse_json(std::string_view text);

}  // namespace recfuse
