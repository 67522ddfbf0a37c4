#include "model/json.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include "model/utf8.hpp"
#include "recfuse/errors.hpp"

namespace recfuse {
namespace {

constexpr int kMostDepth = 128;
constexpr int kMostValues = 1 << 20;
constexpr std::size_t kMostDigits = 1000;

[[noreturn]] void fail(const char* what) {
  throw FormatError(std::string("must have JSON that is whole; got ") + what);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json whole() {
    if (!is_utf8(text_)) fail("bytes that are not UTF-8");
    Json value = any(0);
    skip_space();
    if (at_ < text_.size()) fail("more behind its end");
    return value;
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos) ++at_;
  }

  bool take(char c) {
    skip_space();
    if (peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!take(c)) fail("another character than it needs");
  }

  Json any(int depth) {
    if (depth > kMostDepth) fail("a depth of more than 128");
    if (++n_values_ > kMostValues) fail("more than 1048576 values");
    skip_space();
    switch (peek()) {
      case '{':
        return object(depth);
      case '[':
        return array(depth);
      case '"': {
        Json value;
        value.kind = Json::Kind::kString;
        value.text = string();
        return value;
      }
      case 't':
        return word("true", Json::Kind::kBool, 1);
      case 'f':
        return word("false", Json::Kind::kBool, 0);
      case 'n':
        return word("null", Json::Kind::kNull, 0);
      default:
        return number();
    }
  }

  Json word(std::string_view expected, Json::Kind kind, std::int64_t integer) {
    if (text_.substr(at_, expected.size()) != expected) fail("a word that is none");
    at_ += expected.size();
    Json value;
    value.kind = kind;
    value.integer = integer;
    return value;
  }

  Json object(int depth) {
    Json value;
    value.kind = Json::Kind::kObject;
    expect('{');
    if (take('}')) return value;
    do {
      skip_space();
      if (peek() != '"') fail("a member without a name");
      value.names.push_back(string());
      expect(':');
      value.items.push_back(any(depth + 1));
    } while (take(','));
    expect('}');
    std::vector<std::string_view> names(value.names.begin(), value.names.end());
    std::sort(names.begin(), names.end());
    if (std::adjacent_find(names.begin(), names.end()) != names.end()) fail("a name twice");
    return value;
  }

  Json array(int depth) {
    Json value;
    value.kind = Json::Kind::kArray;
    expect('[');
    if (take(']')) return value;
    do {
      value.items.push_back(any(depth + 1));
    } while (take(','));
    expect(']');
    return value;
  }

  std::string string() {
    std::string out;
    ++at_;  // the quote
    for (;;) {
      if (at_ >= text_.size()) fail("a string without an end");
      const char c = text_[at_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
      if (c == '\\') {
        escaped(out);
      } else {
        out += c;
      }
    }
  }

  void escaped(std::string& out) {
    constexpr std::string_view kCodes = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    const char c = peek();
    ++at_;
    if (c == 'u') return append_utf8(out, code_point());
    const std::size_t i = kCodes.find(c);
    if (c == '\0' || i == std::string_view::npos) fail("an escape that is none");
    out += kMeanings[i];
  }

  std::uint32_t code_point() {
    const std::uint32_t first = unit();
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF || text_.substr(at_, 2) != "\\u") fail("half of a surrogate pair");
    at_ += 2;
    const std::uint32_t second = unit();
    if (second < 0xDC00 || second > 0xDFFF) fail("half of a surrogate pair");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  std::uint32_t unit() {
    const std::string_view digits = text_.substr(std::min(at_, text_.size()), 4);
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() != 4 || error != std::errc() || end != digits.data() + 4) fail("an escape that is none");
    at_ += 4;
    return value;
  }

  void skip_digits() {
    if (!is_digit(peek())) fail("a value that is none");
    while (is_digit(peek())) ++at_;
  }

  Json number() {
    const std::size_t begin = at_;
    bool whole = true;
    if (peek() == '-') ++at_;
    if (peek() == '0') {
      ++at_;
    } else {
      skip_digits();
    }
    if (at_ - begin > kMostDigits) fail("a number of more than 1000 digits");
    if (peek() == '.') {
      whole = false;
      ++at_;
      skip_digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      whole = false;
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      skip_digits();
    }
    return of_digits(text_.substr(begin, at_ - begin), whole);
  }

  static Json of_digits(std::string_view digits, bool whole) {
    Json value;
    value.kind = Json::Kind::kReal;
    const char* const end = digits.data() + digits.size();
    // What no double can hold is no number of ours: whoever wants one finds that it is not finite.
    if (std::from_chars(digits.data(), end, value.real).ec != std::errc())
      value.real = std::numeric_limits<double>::quiet_NaN();
    if (whole && std::from_chars(digits.data(), end, value.integer).ec == std::errc())
      value.kind = Json::Kind::kInteger;
    return value;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int n_values_ = 0;
};

}  // namespace

const Json* Json::find(std::string_view name) const {
  const auto found = std::find(names.begin(), names.end(), name);
  return found == names.end() ? nullptr : &items[static_cast<std::size_t>(found - names.begin())];
}

Json parse_json(std::string_view text) { return Parser(text).whole(); }

}  // namespace recfuse
