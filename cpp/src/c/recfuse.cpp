// The C ABI: arguments checked, exceptions turned into statuses, the rest is Model's.
#include "recfuse/recfuse.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "recfuse/model.hpp"

struct recfuse_model {
  recfuse::Model model;
};

namespace {

// Fixed memory: what is said of a lack of memory must not need any.
thread_local char last_error[1024] = "";

recfuse_status refused(recfuse_status status, std::string_view message) noexcept {
  const std::size_t n = std::min(message.size(), sizeof(last_error) - 1);
  std::memcpy(last_error, message.data(), n);
  last_error[n] = '\0';
  return status;
}

class UnknownId : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Runs what a function does; no exception leaves it.
template <class F>
recfuse_status guarded(const F& body) noexcept {
  try {
    body();
    return RECFUSE_OK;
  } catch (const UnknownId& error) {
    return refused(RECFUSE_UNKNOWN_ID, error.what());
  } catch (const recfuse::FormatError& error) {
    return refused(RECFUSE_BAD_FORMAT, error.what());
  } catch (const std::invalid_argument& error) {
    return refused(RECFUSE_INVALID_ARGUMENT, error.what());
  } catch (const std::out_of_range& error) {
    return refused(RECFUSE_OUT_OF_RANGE, error.what());
  } catch (const std::bad_alloc& error) {
    return refused(RECFUSE_NO_MEMORY, error.what());
  } catch (const std::length_error& error) {
    return refused(RECFUSE_NO_MEMORY, error.what());
  } catch (const std::system_error& error) {
    return refused(RECFUSE_IO_ERROR, error.what());
  } catch (const std::exception& error) {
    return refused(RECFUSE_INTERNAL_ERROR, error.what());
  } catch (...) {
    return refused(RECFUSE_INTERNAL_ERROR, "an exception of no known type");
  }
}

[[noreturn]] void fail(const std::string& rule) { throw std::invalid_argument(rule); }

template <class T>
T& checked(T* pointer, const char* name) {
  if (pointer == nullptr) fail(std::string(name) + " must not be NULL");
  return *pointer;
}

/// Elements behind a pointer that may be NULL where there are none.
template <class T>
std::span<T> elements(T* pointer, std::int64_t n, const char* name) {
  if (n < 0 || n > std::numeric_limits<std::int64_t>::max() / static_cast<std::int64_t>(sizeof(T))) {
    fail("the number of " + std::string(name) + " must be at least 0; got " + std::to_string(n));
  }
  if (n > 0) checked(pointer, name);
  return {pointer, static_cast<std::size_t>(n)};
}

/// Copies a struct of another version: what it lacks keeps its default, what it has more must be zero.
template <class T>
void take_known(const T& given, std::size_t least, T& known, const char* name) {
  if (given.struct_size < least) {
    fail(std::string(name) + ".struct_size must be at least " + std::to_string(least) + "; got " +
         std::to_string(given.struct_size));
  }
  if (given.struct_size > 4096) fail(std::string(name) + ".struct_size must be at most 4096");
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&given);
  for (std::size_t i = sizeof(T); i < given.struct_size; ++i) {
    if (bytes[i] != 0) fail(std::string(name) + " must have zeros where this library knows no field; got others");
  }
  std::memcpy(&known, &given, std::min(sizeof(T), given.struct_size));
}

/// Writes as much of a struct as its caller knows, and leaves its size.
template <class T>
void give_known(const T& known, std::size_t least, T& out, const char* name) {
  const std::size_t size = out.struct_size;
  if (size < least) {
    fail(std::string(name) + ".struct_size must be at least " + std::to_string(least) + "; got " +
         std::to_string(size));
  }
  std::memcpy(&out, &known, std::min(sizeof(T), size));
  out.struct_size = size;
}

constexpr std::size_t kInfoSize = sizeof(recfuse_info), kModalitySize = sizeof(recfuse_modality),
                      kQuerySize = sizeof(recfuse_query);  // of version 1, for ever

recfuse::QueryOptions options_of(const recfuse_query* given) {
  recfuse_query query = RECFUSE_QUERY_INIT;
  if (given != nullptr) take_known(*given, kQuerySize, query, "query");
  recfuse::QueryOptions options;
  options.k = query.k;
  options.weights = elements(query.weights, query.n_weights, "query.weights");
  if (query.weights != nullptr && query.n_weights == 0) fail("query.n_weights must be one per modality; got 0");
  options.exclude = elements(query.exclude, query.n_exclude, "query.exclude");
  options.allow = elements(query.allow, query.n_allow, "query.allow");
  options.has_allow = query.allow != nullptr;
  options.exclude_seen = query.include_seen == 0;
  options.num_threads = query.num_threads;
  return options;
}

/// The lists of a request, whose number of elements must be one that memory can have.
recfuse::TopkOut lists(std::int64_t n, std::int64_t k, std::int32_t* items, float* scores) {
  if (k < 1 || n > std::numeric_limits<std::int64_t>::max() / 8 / k) {
    fail("query.k must be at least 1, and the lists must fit memory; got k " + std::to_string(k));
  }
  elements(items, n * k, "items");
  elements(scores, n * k, "scores");
  return {{items, n, k}, {scores, n, k}};
}

std::string_view text_of(const char* id, std::size_t length) {
  if (id == nullptr && length == 0) return {};
  checked(id, "id");
  return {id, length == RECFUSE_NUL_TERMINATED ? std::strlen(id) : length};
}

void give_row(const std::optional<std::int64_t>& found, std::int64_t* row, const std::string& id) {
  checked(row, "row") = found.value_or(-1);
  if (!found) throw UnknownId("id must be known; got " + id.substr(0, 99));
}

void give_text(const std::string& id, char* text, std::size_t capacity, std::size_t* length) {
  checked(length, "length") = id.size();
  if (capacity == 0) return;
  checked(text, "text");
  const std::size_t n = std::min(id.size(), capacity - 1);
  std::memcpy(text, id.data(), n);
  text[n] = '\0';
}

}  // namespace

extern "C" {

const char* recfuse_version(void) { return RECFUSE_VERSION; }

int32_t recfuse_abi_version(void) { return RECFUSE_ABI_VERSION_MAJOR * 1000 + RECFUSE_ABI_VERSION_MINOR; }

const char* recfuse_last_error(void) { return last_error; }

recfuse_status recfuse_model_open(const char* path, recfuse_verify verify, recfuse_model** model) {
  return guarded([&] {
    checked(model, "model") = nullptr;
    checked(path, "path");
    if (verify < RECFUSE_VERIFY_SMALL || verify > RECFUSE_VERIFY_NOTHING) {
      fail("verify must be RECFUSE_VERIFY_SMALL, _ALL or _NOTHING; got " + std::to_string(verify));
    }
    *model = new recfuse_model{recfuse::Model(std::string(path), static_cast<recfuse::Verify>(verify))};
  });
}

recfuse_status recfuse_model_prepare(const recfuse_model* model) {
  return guarded([&] { checked(model, "model").model.prepare(); });
}

recfuse_status recfuse_model_verify(const recfuse_model* model) {
  return guarded([&] { checked(model, "model").model.file().verify(); });
}

void recfuse_model_close(recfuse_model* model) { delete model; }

recfuse_status recfuse_model_info(const recfuse_model* model, recfuse_info* info) {
  return guarded([&] {
    const recfuse::Model& asked = checked(model, "model").model;
    recfuse_info known = RECFUSE_INFO_INIT;
    known.n_users = asked.n_users().value_or(-1);
    known.n_items = asked.n_items();
    known.n_modalities = static_cast<std::int64_t>(asked.modalities().size());
    known.user_id_kind = static_cast<recfuse_id_kind>(asked.user_id_kind());
    known.item_id_kind = static_cast<recfuse_id_kind>(asked.item_id_kind());
    give_known(known, kInfoSize, checked(info, "info"), "info");
  });
}

recfuse_status recfuse_model_modality(const recfuse_model* model, int64_t index, recfuse_modality* modality) {
  return guarded([&] {
    const auto all = checked(model, "model").model.modalities();
    if (index < 0 || static_cast<std::uint64_t>(index) >= all.size()) {
      throw std::out_of_range("index must be in [0, " + std::to_string(all.size()) + "); got " + std::to_string(index));
    }
    const recfuse::ModalityInfo& one = all[static_cast<std::size_t>(index)];
    const recfuse_modality known = {sizeof(recfuse_modality), one.name.c_str(), one.dim, one.weight};
    give_known(known, kModalitySize, checked(modality, "modality"), "modality");
  });
}

recfuse_status recfuse_user_row(const recfuse_model* model, const char* id, size_t length, int64_t* row) {
  return guarded([&] {
    const std::string_view text = text_of(id, length);
    give_row(checked(model, "model").model.user_row(text), row, std::string(text.substr(0, 99)));
  });
}

recfuse_status recfuse_item_row(const recfuse_model* model, const char* id, size_t length, int64_t* row) {
  return guarded([&] {
    const std::string_view text = text_of(id, length);
    give_row(checked(model, "model").model.item_row(text), row, std::string(text.substr(0, 99)));
  });
}

recfuse_status recfuse_user_row_of_integer(const recfuse_model* model, int64_t id, int64_t* row) {
  return guarded([&] { give_row(checked(model, "model").model.user_row(id), row, std::to_string(id)); });
}

recfuse_status recfuse_item_row_of_integer(const recfuse_model* model, int64_t id, int64_t* row) {
  return guarded([&] { give_row(checked(model, "model").model.item_row(id), row, std::to_string(id)); });
}

recfuse_status recfuse_user_id(const recfuse_model* model, int64_t row, char* text, size_t capacity, size_t* length) {
  return guarded([&] { give_text(checked(model, "model").model.user_id(row), text, capacity, length); });
}

recfuse_status recfuse_item_id(const recfuse_model* model, int64_t row, char* text, size_t capacity, size_t* length) {
  return guarded([&] { give_text(checked(model, "model").model.item_id(row), text, capacity, length); });
}

recfuse_status recfuse_user_integer(const recfuse_model* model, int64_t row, int64_t* id) {
  return guarded([&] { checked(id, "id") = checked(model, "model").model.user_integer(row); });
}

recfuse_status recfuse_item_integer(const recfuse_model* model, int64_t row, int64_t* id) {
  return guarded([&] { checked(id, "id") = checked(model, "model").model.item_integer(row); });
}

recfuse_status recfuse_recommend(const recfuse_model* model, const int64_t* users, int64_t n_users,
                                 const recfuse_query* query, int32_t* items, float* scores) {
  return guarded([&] {
    const recfuse::QueryOptions options = options_of(query);
    const auto rows = elements(users, n_users, "users");
    checked(model, "model").model.recommend(rows, options, lists(n_users, options.k, items, scores));
  });
}

recfuse_status recfuse_search(const recfuse_model* model, const float* const* vectors, int64_t n_modalities,
                              int64_t n_queries, const recfuse_query* query, int32_t* items, float* scores) {
  return guarded([&] {
    const recfuse::Model& asked = checked(model, "model").model;
    const recfuse::QueryOptions options = options_of(query);
    const auto given = elements(vectors, n_modalities, "vectors");
    if (given.size() != asked.modalities().size()) {
      fail("n_modalities must be " + std::to_string(asked.modalities().size()) + "; got " +
           std::to_string(n_modalities));
    }
    if (n_queries < 0) fail("n_queries must be at least 0; got " + std::to_string(n_queries));
    std::vector<recfuse::MatrixView<const float>> matrices;
    for (std::size_t m = 0; m < given.size(); ++m) {
      const std::int64_t dim = asked.modalities()[m].dim;
      matrices.emplace_back(given[m], given[m] == nullptr ? 0 : n_queries, dim);
    }
    asked.search(matrices, options, lists(n_queries, options.k, items, scores));
  });
}

recfuse_status recfuse_similar(const recfuse_model* model, const int64_t* like, int64_t n_like,
                               const recfuse_query* query, int32_t* items, float* scores) {
  return guarded([&] {
    const recfuse::QueryOptions options = options_of(query);
    const auto rows = elements(like, n_like, "like");
    checked(model, "model").model.similar(rows, options, lists(n_like, options.k, items, scores));
  });
}

}  // extern "C"
