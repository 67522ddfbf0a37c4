#include "model/stored_header.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <unordered_map>
#include <utility>

#include "model/json.hpp"
#include "model/sha256.hpp"

namespace recfuse {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::uint64_t kMostHeader = 16 << 20;
constexpr std::size_t kMostDimensions = 32;
constexpr int kNewestVersion = 2;
constexpr std::string_view kDigestKey = "\"recfuse.header_sha256\":\"";

constexpr std::array<std::pair<std::string_view, int>, 12> kDTypes{{{"BOOL", 1},
                                                                    {"U8", 1},
                                                                    {"I8", 1},
                                                                    {"U16", 2},
                                                                    {"I16", 2},
                                                                    {"F16", 2},
                                                                    {"U32", 4},
                                                                    {"I32", 4},
                                                                    {"F32", 4},
                                                                    {"U64", 8},
                                                                    {"I64", 8},
                                                                    {"F64", 8}}};

[[noreturn]] void fail(const std::string& what) { throw FormatError(what); }

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string quoted(std::string_view name) { return std::string("'").append(name.substr(0, 99)).append("'"); }

bool is_digest(std::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::span<const std::byte> header_of(std::span<const std::byte> file) {
  std::uint64_t length = 0;
  if (file.size() < 8) fail("must be a recfuse file; got " + std::to_string(file.size()) + " bytes");
  for (std::size_t i = 0; i < 8; ++i) length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  if (length < 2 || length > kMostHeader || length > file.size() - 8) {
    fail("must be a recfuse file; got another, or one that is cut short");
  }
  if ((8 + length) % kAlignment != 0) fail("must be a recfuse file; got arrays that are not aligned");
  return file.subspan(8, length);
}

const std::string& text_of(const Json& facts, std::string_view name) {
  const Json* const value = facts.find(name);
  if (value == nullptr || !value->is(Json::Kind::kString)) fail("must have " + std::string(name) + "; got none");
  return value->text;
}

int version_of(const Json* facts) {
  if (facts == nullptr || facts->find("recfuse.format") == nullptr) {
    fail("must be a recfuse file; got one by another program");
  }
  const std::string& version = text_of(*facts, "recfuse.format");
  for (int known = 1; known <= kNewestVersion; ++known) {
    if (version == std::to_string(known)) return known;
  }
  fail("must have format " + std::to_string(kNewestVersion) + " or an older one; got " + quoted(version) +
       ". A newer recfuse may read it.");
}

/// Of the file up to the arrays, with zeros in the place of the digest itself.
void check_digest(std::span<const std::byte> begin, const std::string& digest) {
  const std::string_view text = as_text(begin);
  const std::string written = std::string(kDigestKey) + digest;
  const std::size_t at = text.find(written);
  if (!is_digest(digest) || at == std::string_view::npos || text.find(written, at + 1) != std::string_view::npos) {
    fail("must have a header checksum; got none");
  }
  const std::string zeros(64, '0');
  const std::size_t place = at + kDigestKey.size();
  Sha256 sum;
  sum.add(begin.first(place));
  sum.add(std::as_bytes(std::span(zeros)));
  sum.add(begin.subspan(place + zeros.size()));
  if (sum.hex_digest() != digest) fail("must have the header that was written; got another checksum");
}

bool is_size(const Json& value) { return value.is(Json::Kind::kInteger) && value.integer >= 0; }

/// Bytes of an array; FormatError where they are no number of 63 bits. A dimension of 0 makes all others harmless.
std::int64_t bytes_of(const StoredArray& array) {
  const auto has_none = std::find(array.shape.begin(), array.shape.end(), 0) != array.shape.end();
  std::int64_t bytes = item_size(array.dtype);
  for (const std::int64_t n : array.shape) {
    if (has_none) break;
    if (n > std::numeric_limits<std::int64_t>::max() / bytes) fail("must have possible shapes; got more than 2^63");
    bytes *= n;
  }
  return has_none ? 0 : bytes;
}

/// An array of the header, its bytes those of `payload` from `position` on.
StoredArray array_of(const std::string& name, const Json& entry, std::span<const std::byte> payload,
                     std::size_t position) {
  StoredArray array;
  array.name = name;
  const Json *const dtype = entry.find("dtype"), *const shape = entry.find("shape"),
                    *const offsets = entry.find("data_offsets");
  const bool described = dtype != nullptr && dtype->is(Json::Kind::kString) && shape != nullptr &&
                         shape->is(Json::Kind::kArray) && offsets != nullptr && offsets->is(Json::Kind::kArray) &&
                         offsets->items.size() == 2 && shape->items.size() <= kMostDimensions &&
                         std::all_of(shape->items.begin(), shape->items.end(), is_size) &&
                         std::all_of(offsets->items.begin(), offsets->items.end(), is_size);
  const auto* const known = std::find_if(kDTypes.begin(), kDTypes.end(),
                                         [&](const auto& one) { return described && one.first == dtype->text; });
  if (!described || known == kDTypes.end()) fail("must describe each array; got another entry for " + quoted(name));
  array.dtype = static_cast<DType>(known - kDTypes.begin());
  for (const Json& n : shape->items) array.shape.push_back(n.integer);
  const std::int64_t begin = offsets->items[0].integer, end = offsets->items[1].integer;
  if (end < begin || end - begin != bytes_of(array) || static_cast<std::uint64_t>(end) > payload.size()) {
    fail("must have arrays that fit the file; got " + quoted(name));
  }
  const bool gap = name.starts_with('#');
  if (static_cast<std::uint64_t>(begin) != position || (!gap && position % kAlignment != 0)) {
    fail("must have arrays in order; got another offset for " + quoted(name));
  }
  array.bytes = payload.subspan(position, static_cast<std::size_t>(end - begin));
  return array;
}

std::vector<StoredArray> arrays_of(const Json& header, std::span<const std::byte> payload) {
  std::vector<StoredArray> arrays;
  std::size_t position = 0;
  for (std::size_t i = 0; i < header.names.size(); ++i) {
    const std::string& name = header.names[i];
    if (name == "__metadata__") continue;
    StoredArray array = array_of(name, header.items[i], payload, position);
    position += array.bytes.size();
    if (!name.starts_with('#')) {
      arrays.push_back(std::move(array));
      continue;
    }
    const bool zeros =
        std::all_of(array.bytes.begin(), array.bytes.end(), [](std::byte b) { return b == std::byte{0}; });
    if (array.bytes.size() >= kAlignment || !zeros) fail("must have zeros between arrays; got others");
  }
  if (position != payload.size()) {
    fail("must end after " + std::to_string(position) + " bytes of arrays; got " + std::to_string(payload.size()));
  }
  return arrays;
}

std::vector<std::string> checksums_of(const Json& facts, std::span<const StoredArray> arrays) {
  const Json listed = parse_json(text_of(facts, "recfuse.checksums"));
  std::unordered_map<std::string_view, std::string_view> by_name;
  for (std::size_t i = 0; i < listed.names.size(); ++i) by_name.emplace(listed.names[i], listed.items[i].text);
  if (by_name.size() != arrays.size()) fail("must have one checksum per array; got others");
  std::vector<std::string> checksums;
  for (const StoredArray& array : arrays) {
    const auto found = by_name.find(array.name);
    if (found == by_name.end() || !is_digest(found->second)) fail("must have one checksum per array; got others");
    checksums.emplace_back(found->second);
  }
  return checksums;
}

}  // namespace

std::int64_t item_size(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)].second; }

std::string_view name_of(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)].first; }

StoredHeader parse_header(std::span<const std::byte> file) {
  const std::span<const std::byte> text = header_of(file);
  const Json header = parse_json(as_text(text));
  const Json* const facts = header.find("__metadata__");
  StoredHeader parsed;
  parsed.version = version_of(facts);
  check_digest(file.first(8 + text.size()), text_of(*facts, "recfuse.header_sha256"));
  parsed.kind = text_of(*facts, "recfuse.kind");
  parsed.metadata = text_of(*facts, "recfuse.metadata");
  parsed.payload = file.subspan(8 + text.size());
  parsed.arrays = arrays_of(header, parsed.payload);
  if (parsed.version == 1) {
    parsed.checksum = text_of(*facts, "recfuse.sha256");
  } else {
    parsed.checksums = checksums_of(*facts, parsed.arrays);
  }
  return parsed;
}

}  // namespace recfuse
