// Golden model files as a C++ program uses them: the answers that Python gave, ids, and what is wrong with a file.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "check.hpp"
#include "golden_files.hpp"
#include "model/json.hpp"
#include "model/sha256.hpp"
#include "model/utf8.hpp"
#include "recfuse/recfuse.hpp"

namespace {

using recfuse::DType;
using recfuse::FormatError;
using recfuse::IdKind;
using recfuse::Json;
using recfuse::Model;
using recfuse::ModelFile;
using recfuse::Verify;

using recfuse::testing::kFolder;
using recfuse::testing::Lists;

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

/// The lists of Python: ids as text, "-1" or "None" for padding, and scores.
void check_answers(const Model& model, const Json& answers, const Lists& lists) {
  for (std::int64_t row = 0; row < lists.n; ++row) {
    for (std::int64_t j = 0; j < lists.k; ++j) {
      const auto at = static_cast<std::size_t>(row * lists.k + j);
      const std::string& expected =
          answers.items[0].items[static_cast<std::size_t>(row)].items[static_cast<std::size_t>(j)].text;
      const double score =
          answers.items[1].items[static_cast<std::size_t>(row)].items[static_cast<std::size_t>(j)].real;
      const std::int32_t id = lists.ids[at];
      if (id < 0) {
        CHECK(expected == "-1" || expected == "None");
        CHECK(std::isinf(lists.scores[at]));
      } else {
        CHECK(model.item_id(id) == expected);
        CHECK(lists.scores[at] == static_cast<float>(score));
      }
    }
  }
}

/// JSON of Python has -Infinity, which no other JSON has.
Json answers() {
  std::string text = bytes_of(kFolder + "/v2/answers.json");
  for (std::size_t at = 0; (at = text.find("-Infinity", at)) != std::string::npos;) text.replace(at, 9, "-1e9");
  return recfuse::parse_json(text);
}

TEST(golden_models_answer_as_in_python) {
  const Json expected = answers();
  for (const std::string name : {"als", "biases", "labelled", "retriever", "toplist"}) {
    const Model model(kFolder + "/v2/" + name + ".recfuse");
    std::vector<std::int64_t> users;
    for (std::int64_t row = 0; row < *model.n_users(); ++row) users.push_back(row);
    Lists lists(*model.n_users(), 4);
    recfuse::QueryOptions options;
    options.k = 4;
    model.recommend(users, options, lists.out());
    check_answers(model, *expected.find(name), lists);
  }
}

TEST(a_golden_index_answers_as_in_python) {
  const Model model(kFolder + "/v2/index.recfuse");
  CHECK(!model.n_users());
  CHECK(model.user_id_kind() == IdKind::kRow);
  CHECK(!model.user_row(std::int64_t{0}));
  std::vector<std::vector<float>> vectors;
  std::vector<recfuse::MatrixView<const float>> queries;
  for (const auto& modality : model.modalities()) {
    auto& rows = vectors.emplace_back(static_cast<std::size_t>(2 * modality.dim), 0.0F);
    rows[0] = rows[static_cast<std::size_t>(modality.dim) + 1] = 1;
    queries.emplace_back(rows.data(), 2, modality.dim);
  }
  Lists lists(2, 4);
  recfuse::QueryOptions options;
  options.k = 4;
  model.search(queries, options, lists.out());
  check_answers(model, *answers().find("index"), lists);
  CHECK_THROWS(std::invalid_argument, "recommend: model must have vectors of users; got one of items alone: use search",
               model.recommend({}, options, lists.out()));
  CHECK_THROWS(std::invalid_argument, "search: vectors must have 2 modalities; got 1",
               model.search(std::span(queries).first(1), options, lists.out()));
  queries[1].cols = 1;
  CHECK_THROWS(std::invalid_argument, "search: vectors['image'] must have shape (2, 2); got (2, 1)",
               model.search(queries, options, lists.out()));
  queries[0].data = queries[1].data = nullptr;
  CHECK_THROWS(std::invalid_argument, "search: vectors must have data of a modality; got none",
               model.search(queries, options, lists.out()));
}

TEST(ids_go_both_ways) {
  const Model model(kFolder + "/v2/labelled.recfuse");
  CHECK(model.user_id_kind() == IdKind::kString && model.item_id_kind() == IdKind::kInteger);
  std::set<std::string> users;
  for (std::int64_t row = 0; row < *model.n_users(); ++row) {
    CHECK(model.user_row(model.user_id(row)) == row);
    users.insert(model.user_id(row));
  }
  CHECK(static_cast<std::int64_t>(users.size()) == *model.n_users());
  for (std::int64_t row = 0; row < model.n_items(); ++row) {
    CHECK(model.item_row(model.item_integer(row)) == row);
    CHECK(model.item_id(row) == std::to_string(model.item_integer(row)));
  }
  CHECK(!model.user_row("nobody") && !model.user_row("") && !model.user_row(std::int64_t{0}));
  CHECK(!model.item_row(std::int64_t{-1}) && !model.item_row(std::numeric_limits<std::int64_t>::max()));
  CHECK_THROWS(std::out_of_range, "user_id: row must be in [0, 11); got 12", (void)model.user_id(12));
  CHECK_THROWS(std::invalid_argument, "user_integer: row must be of a model whose ids are integers; got one of text",
               (void)model.user_integer(0));
}

TEST(requests_are_checked) {
  const Model model(kFolder + "/v2/als.recfuse");
  Lists lists(1, 4);
  recfuse::QueryOptions options;
  options.k = 4;
  const std::vector<std::int64_t> user{0}, nobody{12};
  const std::vector<double> weights{1, 1};
  const std::vector<std::int32_t> items{10};
  CHECK_THROWS(std::out_of_range, "recommend: users must be in [0, 12); got 12",
               model.recommend(nobody, options, lists.out()));
  options.exclude = items;
  CHECK_THROWS(std::out_of_range, "recommend: exclude must be in [0, 10); got 10",
               model.recommend(user, options, lists.out()));
  options.exclude = {};
  options.weights = weights;
  CHECK_THROWS(std::invalid_argument, "recommend: weights must be 1, one per modality; got 2",
               model.recommend(user, options, lists.out()));
  options.weights = {};
  options.k = 3;
  CHECK_THROWS(std::invalid_argument, "recommend: out must have shape (1, 3) twice; got another",
               model.recommend(user, options, lists.out()));
  options.k = 0;
  CHECK_THROWS(std::invalid_argument, "similar: k must be in [1, 2147483647]; got 0",
               model.similar(user, options, lists.out()));
}

TEST(arrays_of_every_format) {
  for (const std::string version : {"v1", "v2"}) {
    const ModelFile file(kFolder + "/" + version + "/arrays.recfuse", Verify::kAll);
    CHECK(file.kind() == "model" && std::to_string(file.version()) == version.substr(1));
    CHECK(recfuse::parse_json(file.metadata()).find("name")->text == "金");
    CHECK(file.arrays().size() == 16);
    const auto* const doubles = file.find("of <f8");
    CHECK(doubles->shape == (std::vector<std::int64_t>{2, 3}));
    CHECK(std::ranges::equal(doubles->as<double>(), std::array<double, 6>{0, 1, 2, 3, 4, 5}));
    CHECK(std::ranges::equal(file.find("of <u2")->as<std::uint16_t>(), std::array<int, 6>{0, 1, 2, 3, 4, 5}));
    CHECK(std::bit_cast<std::uintptr_t>(doubles->bytes.data()) % 64 == 0);
    CHECK(file.find("scalar")->size() == 1 && file.find("empty")->size() == 0);
    CHECK(file.find("nothing") == nullptr);
    CHECK_THROWS(FormatError, "must have F32 in 'of <f8'; got F64", (void)doubles->as<float>());
  }
}

bool is_refused(const std::string& file, Verify verify = Verify::kSmall) {
  try {
    (void)ModelFile::from_bytes(as_bytes(file), verify);
  } catch (const FormatError&) {
    return true;
  }
  return false;
}

TEST(every_truncation_and_every_flipped_byte_is_found) {
  for (const std::string name : {"v1/als", "v2/index"}) {
    std::string file = bytes_of(kFolder + "/" + name + ".recfuse");
    CHECK(!is_refused(file) && is_refused(file + '\0', Verify::kNothing));
    for (std::size_t n = 0; n < file.size(); ++n) CHECK(is_refused(file.substr(0, n), Verify::kNothing));
    for (char& byte : file) {
      for (const int bits : {0x01, 0xFF}) {
        byte = static_cast<char>(byte ^ bits);
        CHECK(is_refused(file));
        byte = static_cast<char>(byte ^ bits);
      }
    }
  }
}

TEST(header_sizes_are_not_believed) {
  for (int bit = 0; bit < 64; ++bit) {
    std::string file = bytes_of(kFolder + "/v2/als.recfuse");
    const std::uint64_t size = std::uint64_t{1} << bit;
    std::memcpy(file.data(), &size, sizeof(size));
    CHECK(is_refused(file));
  }
}

TEST(other_files_are_named) {
  CHECK_THROWS(std::system_error, "/nowhere/at all: No such file or directory", ModelFile("/nowhere/at all"));
  CHECK_THROWS(std::system_error, "/: Is a directory", ModelFile("/"));
  CHECK_THROWS(FormatError, "read: memory must be a recfuse file; got 3 bytes",
               (void)ModelFile::from_bytes(as_bytes("abc")));
  const std::string popularity = kFolder + "/v2/popularity.recfuse";
  CHECK(recfuse::testing::thrown_message<FormatError>([&] {
          const Model model(popularity);
        }).starts_with("must have a dense search; got a model without one."));
}

TEST(json_is_strict) {
  const Json value = recfuse::parse_json(" {\"a\":[1,-2.5e3,true,null,\"\\u4e8c\\ud83c\\udfac\\n\"],\"b\":{}} ");
  CHECK(value.find("a")->items[0].integer == 1 && value.find("a")->items[1].real == -2500);
  CHECK(value.find("a")->items[4].text == "二🎬\n" && value.find("c") == nullptr);
  CHECK(recfuse::parse_json("9223372036854775808").is(Json::Kind::kReal));
  CHECK(std::isnan(recfuse::parse_json("1e999").real));
  for (const std::string wrong : {"",
                                  "{",
                                  "[1,]",
                                  "{\"a\":1,}",
                                  "{\"a\":1,\"a\":2}",
                                  "01",
                                  "+1",
                                  ".5",
                                  "1.",
                                  "1e",
                                  "-",
                                  "NaN",
                                  "Infinity",
                                  "trui",
                                  "[1] 2",
                                  "\"\\x\"",
                                  "\"\\u12\"",
                                  "\"\\ud800\"",
                                  "\"\\ud800\\u0041\"",
                                  "\"\n\"",
                                  "\"",
                                  "{1:2}",
                                  "{\"a\" 1}",
                                  "'a'",
                                  "\"\xff\"",
                                  "\"\xc0\x80\"",
                                  "\"\xed\xa0\x80\"",
                                  "\xef\xbb\xbf{}"}) {
    CHECK(recfuse::testing::thrown_message<FormatError>([&] { (void)recfuse::parse_json(wrong); }) != "");
  }
  const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  CHECK(recfuse::parse_json(nested(128)).is(Json::Kind::kArray));
  CHECK_THROWS(FormatError, "must have JSON that is whole; got a depth of more than 128",
               (void)recfuse::parse_json(nested(1000000)));
  CHECK_THROWS(FormatError, "must have JSON that is whole; got a number of more than 1000 digits",
               (void)recfuse::parse_json(std::string(5000, '9')));
  std::string many = "[0";
  for (int i = 0; i < (1 << 20); ++i) many += ",0";
  CHECK_THROWS(FormatError, "must have JSON that is whole; got more than 1048576 values",
               (void)recfuse::parse_json(many + "]"));
}

TEST(sha256_is_that_of_the_standard) {
  CHECK(recfuse::sha256_hex({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(recfuse::sha256_hex(as_bytes("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string million(1000000, 'a');
  CHECK(recfuse::sha256_hex(as_bytes(million)) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  for (std::size_t n = 0; n < 200; ++n) {  // in pieces, around the ends of blocks
    recfuse::Sha256 pieces;
    for (std::size_t i = 0; i < n; i += 7) pieces.add(as_bytes(million).subspan(i, std::min<std::size_t>(7, n - i)));
    CHECK(pieces.hex_digest() == recfuse::sha256_hex(as_bytes(million).first(n)));
  }
}

}  // namespace
