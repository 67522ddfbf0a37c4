#include "model/retrieval.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <set>

#include "model/json.hpp"

namespace recfuse {
namespace {

constexpr int kVersion = 1;
constexpr std::size_t kMostModalities = 64, kMostParts = 8;
constexpr std::int64_t kMostDimensions = 1 << 20;
constexpr std::int64_t kMostRows = std::numeric_limits<std::int32_t>::max();
constexpr double kMostCopies = 16;  // of the file: what its vectors would take side by side

[[noreturn]] void fail(const std::string& rule) { throw FormatError("must have " + rule + "; got others"); }

const Json& member(const Json& object, std::string_view name) {
  const Json* const value = object.find(name);
  if (value == nullptr) fail("a retrieval with '" + std::string(name) + "'");
  return *value;
}

double number(const Json& value) {
  const bool is_number = value.is(Json::Kind::kInteger) || value.is(Json::Kind::kReal);
  if (!is_number || !std::isfinite(value.real)) fail("finite numbers");
  return value.real;
}

bool has_shape(const StoredArray& array, std::initializer_list<std::int64_t> shape) {
  return std::equal(array.shape.begin(), array.shape.end(), shape.begin(), shape.end());
}

bool has_type(const StoredArray& array, std::initializer_list<DType> types) {
  return std::find(types.begin(), types.end(), array.dtype) != types.end();
}

class Reader {
 public:
  Reader(const ModelFile& file, const Json& all) : file_(file), all_(all) {
    const Json& version = member(all, "version");
    if (!version.is(Json::Kind::kInteger) || version.integer != kVersion) fail("a retrieval of version 1");
  }

  Retrieval retrieval() const {
    Retrieval out;
    const Json& listed = member(all_, "modalities");
    if (!listed.is(Json::Kind::kArray) || listed.items.empty() || listed.items.size() > kMostModalities)
      fail("1 to 64 modalities");
    for (const Json& entry : listed.items) out.modalities.push_back(modality(entry));
    check_modalities(out);
    const auto n = static_cast<std::int64_t>(out.modalities.size());
    out.metric = member(all_, "metric").text == "cosine" ? Metric::kCosine : Metric::kDot;
    if (out.metric == Metric::kDot && member(all_, "metric").text != "dot") fail("a metric of dot or cosine");
    out.missing = member(all_, "missing").text == "zero" ? Missing::kZero : Missing::kRenormalise;
    if (out.missing == Missing::kRenormalise && member(all_, "missing").text != "renormalise") {
      fail("missing of renormalise or zero");
    }
    out.weights = weights(member(all_, "weights"), out.modalities.size());
    const Json& alike = member(all_, "similar_weights");
    out.similar_weights = alike.is(Json::Kind::kNull) ? out.weights : weights(alike, out.modalities.size());
    out.fallback = fallback(out.modalities.size());
    if (const StoredArray* const array = optional_array("user_weights")) {
      if (!has_shape(*array, {out.n_users(), n})) fail("user_weights of (users, modalities)");
      out.user_weights = array->as<double>();
      out.has_user_weights = true;
    }
    if (const StoredArray* const array = optional_array("present")) {
      if (!has_shape(*array, {out.n_items(), n}) || !has_type(*array, {DType::kU8, DType::kBool})) {
        fail("present of (items, modalities)");
      }
      out.present = {reinterpret_cast<const std::uint8_t*>(array->bytes.data()), array->bytes.size()};
      out.has_present = true;
    }
    out.user_ids = ids("user_ids", out.n_users());
    out.item_ids = ids("item_ids", out.n_items());
    out.seen = seen(out);
    return out;
  }

 private:
  const StoredArray& array(const Json& name) const {
    const StoredArray* const found = name.is(Json::Kind::kString) ? file_.find(name.text) : nullptr;
    if (found == nullptr) fail("arrays that the file has");
    return *found;
  }

  const StoredArray* optional_array(std::string_view name) const {
    const Json& value = member(all_, name);
    return value.is(Json::Kind::kNull) ? nullptr : &array(value);
  }

  Modality modality(const Json& entry) const {
    Modality out;
    if (!member(entry, "name").is(Json::Kind::kString)) fail("modalities that have names");
    out.name = member(entry, "name").text;
    out.items = vectors(member(entry, "items"));
    if (!member(entry, "users").is(Json::Kind::kNull)) out.users = vectors(member(entry, "users"));
    if (!member(entry, "similar").is(Json::Kind::kNull)) out.similar = vectors(member(entry, "similar"));
    return out;
  }

  Vectors vectors(const Json& parts) const {
    Vectors out;
    if (!parts.is(Json::Kind::kArray) || parts.items.empty() || parts.items.size() > kMostParts)
      fail("vectors of 1 to 8 parts");
    std::set<std::int64_t> n_rows;
    for (const Json& entry : parts.items) {
      const VectorPart& part = out.parts.emplace_back(vector_part(entry, n_rows));
      out.dim += part.columns;
      if (part.columns > kMostDimensions || out.dim > kMostDimensions) fail("vectors of up to 1048576 columns");
    }
    if (n_rows.size() != 1 || *n_rows.begin() > kMostRows || out.dim < 1) fail("vectors of one number of rows");
    out.rows = *n_rows.begin();
    return out;
  }

  VectorPart vector_part(const Json& entry, std::set<std::int64_t>& n_rows) const {
    VectorPart part;
    if (const Json* const constant = entry.find("constant")) {
      part.constant = static_cast<float>(number(*constant));
      part.is_constant = true;
      return part;
    }
    const StoredArray& stored = array(member(entry, "array"));
    if (stored.shape.empty() || stored.shape.size() > 2) fail("vectors in 1 or 2 dimensions");
    part.values = stored.as<float>();
    part.stride = stored.shape.size() == 2 ? stored.shape[1] : 1;
    part.columns = part.stride;
    n_rows.insert(stored.shape[0]);
    if (const Json* const columns = entry.find("columns"); columns != nullptr && !columns->is(Json::Kind::kNull)) {
      const bool fits = stored.shape.size() == 2 && columns->is(Json::Kind::kInteger) && columns->integer >= 0 &&
                        columns->integer <= part.stride;
      if (!fits) fail("parts of as many columns as there are");
      part.columns = columns->integer;
    }
    if (const Json* const plus = entry.find("plus"); plus != nullptr && !plus->is(Json::Kind::kNull)) {
      part.plus = number(*plus);
    }
    return part;
  }

  void check_modalities(const Retrieval& retrieval) const {
    std::set<std::string_view> names;
    double bytes = 0;
    for (const Modality& modality : retrieval.modalities) {
      bytes += sizeof(float) * static_cast<double>(modality.items.rows) * static_cast<double>(modality.items.dim);
      if (!names.insert(modality.name).second) fail("modalities of different names");
      if (modality.items.rows != retrieval.n_items() || modality.likeness().rows != retrieval.n_items()) {
        fail("as many items in every modality");
      }
      if (modality.users.has_value() != (retrieval.n_users() >= 0)) fail("users in all modalities or in none");
      if (!modality.users) continue;
      if (modality.users->rows != retrieval.n_users() || modality.users->dim != modality.items.dim) {
        fail("users and items of one space");
      }
    }
    const double file_bytes = static_cast<double>(arrays_bytes());
    if (bytes > kMostCopies * file_bytes) fail("items that are in the file");
  }

  /// What vectors can be made of.
  std::size_t arrays_bytes() const {
    std::size_t bytes = 0;
    for (const StoredArray& array : file_.arrays()) bytes += array.bytes.size();
    return bytes;
  }

  static std::vector<double> weights(const Json& listed, std::size_t n) {
    std::vector<double> out;
    for (const Json& weight : listed.items) out.push_back(number(weight));
    if (!listed.is(Json::Kind::kArray) || out.size() != n) fail("one weight per modality");
    return out;
  }

  std::optional<std::size_t> fallback(std::size_t n) const {
    const Json& value = member(all_, "fallback");
    if (value.is(Json::Kind::kNull)) return std::nullopt;
    if (!value.is(Json::Kind::kInteger) || value.integer < 0 || static_cast<std::uint64_t>(value.integer) >= n) {
      fail("a fallback that is a modality");
    }
    return static_cast<std::size_t>(value.integer);
  }

  IdTable ids(std::string_view key, std::int64_t n) const {
    const Json& entry = member(all_, key);
    if (entry.is(Json::Kind::kNull)) return IdTable(std::max<std::int64_t>(n, 0));
    const StoredArray* order = nullptr;
    if (!member(entry, "order").is(Json::Kind::kNull)) {
      order = &array(member(entry, "order"));
      if (!has_shape(*order, {n}) || !has_type(*order, {DType::kI32, DType::kI64})) fail("an order of the ids");
    }
    const std::string& kind = member(entry, "kind").text;
    if (kind == "integer") {
      const StoredArray& integers = array(member(entry, "integers"));
      const bool whole = has_type(integers, {DType::kI8, DType::kU8, DType::kI16, DType::kU16, DType::kI32, DType::kU32,
                                             DType::kI64, DType::kU64});
      if (!whole || !has_shape(integers, {n})) fail("integers as ids");
      return IdTable(integers, order);
    }
    if (kind != "string" && kind != "label") fail("ids of a known kind");
    const StoredArray &utf8 = array(member(entry, "utf8")), &offsets = array(member(entry, "offsets"));
    if (!has_type(utf8, {DType::kU8}) || utf8.shape.size() != 1 || !has_type(offsets, {DType::kI64}) || n < 0 ||
        !has_shape(offsets, {n + 1})) {
      fail("text as ids");
    }
    return IdTable(kind == "string" ? IdKind::kString : IdKind::kLabel, utf8, offsets, order);
  }

  std::optional<SeenItems> seen(const Retrieval& retrieval) const {
    const Json& entry = member(all_, "seen");
    if (entry.is(Json::Kind::kNull)) return std::nullopt;
    const StoredArray &indptr = array(member(entry, "indptr")), &indices = array(member(entry, "indices"));
    const std::initializer_list<DType> integers = {DType::kI32, DType::kI64};
    if (retrieval.n_users() < 0 || !has_type(indptr, integers) || !has_shape(indptr, {retrieval.n_users() + 1}) ||
        !has_type(indices, integers) || indices.shape.size() != 1) {
      fail("seen items of users");
    }
    return SeenItems(indptr, indices, retrieval.n_items());
  }

  const ModelFile& file_;
  const Json& all_;
};

}  // namespace

void Vectors::copy_row(std::int64_t row, float* out) const {
  for (const VectorPart& part : parts) {
    if (part.is_constant) {
      *out++ = part.constant;
      continue;
    }
    const float* const values = part.values.data() + row * part.stride;
    for (std::int64_t column = 0; column < part.columns; ++column) {
      *out++ = part.plus ? static_cast<float>(static_cast<double>(values[column]) + *part.plus) : values[column];
    }
  }
}

MatrixView<const float> Vectors::matrix(std::vector<float>& storage) const {
  if (parts.size() == 1 && !parts[0].plus) return {parts[0].values.data(), rows, dim, parts[0].stride};
  storage.resize(static_cast<std::size_t>(rows * dim));
  for (std::int64_t row = 0; row < rows; ++row) copy_row(row, storage.data() + row * dim);
  return {storage.data(), rows, dim};
}

SeenItems::SeenItems(const StoredArray& indptr, const StoredArray& indices, std::int64_t n_items)
    : indptr_(&indptr), indices_(&indices), n_items_(n_items) {}

void SeenItems::append(std::int64_t row, std::vector<std::int32_t>& out) const {
  const std::int64_t begin = integer_at(*indptr_, row), end = integer_at(*indptr_, row + 1);
  if (begin < 0 || end < begin || end > indices_->size()) fail("seen items with row starts that rise");
  for (std::int64_t j = begin; j < end; ++j) {
    const std::int64_t item = integer_at(*indices_, j);
    if (item < 0 || item >= n_items_) fail("seen items in [0, " + std::to_string(n_items_) + ")");
    out.push_back(static_cast<std::int32_t>(item));
  }
}

Retrieval parse_retrieval(const ModelFile& file) {
  const Json metadata = parse_json(file.metadata());
  const Json* const retrieval = metadata.find("retrieval");
  if (retrieval == nullptr) {
    throw FormatError(
        "must have a dense search; got a model without one. In Python, write it again, or "
        "recfuse.serving.Retriever.from_model(model).save(path)");
  }
  return Reader(file, *retrieval).retrieval();
}

}  // namespace recfuse
