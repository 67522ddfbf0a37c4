// A hostile file never crashes a process: whatever the bytes, reading and asking end in an answer or an exception that
// recfuse.h has a status for. README.md says how to run it.
//
// An input is a file as it is (first byte even), or the text of its header, a zero byte and its arrays (odd): length,
// padding and checksum of the header are made right then, so that the fuzzer reaches what lies behind them.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "model/sha256.hpp"
#include "recfuse/model.hpp"

namespace {

using recfuse::FormatError;
using recfuse::Model;
using recfuse::ModelFile;
using recfuse::Verify;

constexpr std::string_view kKey = "\"recfuse.header_sha256\":\"";

std::string with_right_header(std::string_view input) {
  const std::size_t end = std::min(input.find('\0'), input.size());
  std::string header(input.substr(0, end));
  header.resize((header.size() + 8 + 63) / 64 * 64 - 8, ' ');
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> (8 * i));
  file += header;
  if (const std::size_t key = file.find(kKey); key != std::string::npos && key + kKey.size() + 64 <= file.size()) {
    file.replace(key + kKey.size(), 64, std::string(64, '0'));
    file.replace(key + kKey.size(), 64, recfuse::sha256_hex(std::as_bytes(std::span(file))));
  }
  if (end < input.size()) file += input.substr(end + 1);
  return file;
}

/// Runs a request; what it may throw is what the C ABI has a status for.
template <class F>
void asked(const F& request) {
  try {
    request();
  } catch (const FormatError&) {
  } catch (const std::invalid_argument&) {
  } catch (const std::out_of_range&) {
  }
}

struct Lists {
  std::vector<std::int32_t> ids;
  std::vector<float> scores;
  recfuse::TopkOut out;

  Lists(std::int64_t n, std::int64_t k) : ids(static_cast<std::size_t>(n * k)), scores(ids.size()) {
    out = {{ids.data(), n, k}, {scores.data(), n, k}};
  }

  void check(std::int64_t n_items) const {
    for (const std::int32_t id : ids) {
      if (id < -1 || id >= n_items) std::abort();
    }
  }
};

void ask_ids(const Model& model, std::int64_t row) {
  asked([&] {
    const std::string id = model.user_id(row);
    (void)model.user_row(id);
    (void)model.user_row(model.user_integer(row));
  });
  asked([&] {
    const std::string id = model.item_id(row);
    (void)model.item_row(id);
    (void)model.item_row(model.item_integer(row));
  });
  asked([&] { (void)model.item_row("x"); });
}

void ask(const Model& model) {
  const std::int64_t n_users = model.n_users().value_or(0), n_items = model.n_items();
  for (const std::int64_t row : {std::int64_t{0}, std::int64_t{1}, n_users - 1, n_items - 1}) ask_ids(model, row);
  recfuse::QueryOptions options;
  options.k = 3;
  options.num_threads = 1;
  std::vector<std::int64_t> users, items;
  for (std::int64_t row = 0; row < std::min<std::int64_t>(n_users, 4); ++row) users.push_back(row);
  for (std::int64_t row = 0; row < std::min<std::int64_t>(n_items, 4); ++row) items.push_back(row);
  const std::vector<std::int32_t> listed(items.begin(), items.end());
  Lists lists(static_cast<std::int64_t>(users.size()), options.k);
  Lists alike(static_cast<std::int64_t>(items.size()), options.k);
  asked([&] {
    model.recommend(users, options, lists.out);
    lists.check(n_items);
  });
  asked([&] {
    model.similar(items, options, alike.out);
    alike.check(n_items);
  });
  options.exclude = listed;
  asked([&] { model.recommend(users, options, lists.out); });
  std::vector<std::vector<float>> vectors;
  std::vector<recfuse::MatrixView<const float>> queries;
  for (const auto& modality : model.modalities()) {
    if (modality.dim > 4096) return;
    vectors.emplace_back(static_cast<std::size_t>(modality.dim), 0.5F);
    queries.emplace_back(vectors.back().data(), 1, modality.dim);
  }
  Lists found(1, options.k);
  asked([&] {
    model.search(queries, options, found.out);
    found.check(n_items);
  });
}

void read(std::string_view bytes, Verify verify) {
  asked([&] {
    ModelFile file = ModelFile::from_bytes(std::as_bytes(std::span(bytes)), verify);
    for (const auto& array : file.arrays()) {
      if (file.find(array.name) != &array) std::abort();
      volatile std::byte last{};
      if (!array.bytes.empty()) last = array.bytes.back();
      (void)last;
    }
    ask(Model(std::move(file)));
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    read(input, Verify::kAll);
  } else {
    read(with_right_header(input), Verify::kNothing);
  }
  return 0;
}
