// What a model file says of its dense search (docs/model-file.md), with every name, type, length and number held
// against the arrays. What is inside of them is checked where it is used.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/id_table.hpp"
#include "recfuse/fuse_topk.hpp"
#include "recfuse/model_file.hpp"

namespace recfuse {

/// Columns of vectors: of an array, or a constant.
struct VectorPart {
  std::span<const float> values;  // empty for a constant
  std::int64_t stride = 0;        // of a row
  std::int64_t columns = 1;
  std::optional<double> plus;  // added in float64, rounded to float32
  float constant = 0;
  bool is_constant = false;
};

/// Vectors of users or items: parts side by side.
struct Vectors {
  std::vector<VectorPart> parts;
  std::int64_t rows = 0;
  std::int64_t dim = 0;

  void copy_row(std::int64_t row, float* out) const;
  /// The array where it is one, else a copy in `storage`.
  MatrixView<const float> matrix(std::vector<float>& storage) const;
};

struct Modality {
  std::string name;
  Vectors items;
  std::optional<Vectors> users;
  std::optional<Vectors> similar;  // none: items

  const Vectors& likeness() const { return similar ? *similar : items; }
};

/// The items of every user; a row is checked when it is asked for.
class SeenItems {
 public:
  SeenItems(const StoredArray& indptr, const StoredArray& indices, std::int64_t n_items);
  /// Adds the items of a user; FormatError where they are none.
  void append(std::int64_t row, std::vector<std::int32_t>& out) const;

 private:
  const StoredArray* indptr_;
  const StoredArray* indices_;
  std::int64_t n_items_;
};

struct Retrieval {
  std::vector<Modality> modalities;
  Metric metric = Metric::kDot;
  Missing missing = Missing::kRenormalise;
  std::vector<double> weights;
  std::span<const double> user_weights;  // (n_users, modalities), or empty
  std::vector<double> similar_weights;
  std::optional<std::size_t> fallback;
  std::span<const std::uint8_t> present;  // (n_items, modalities), or empty
  bool has_present = false;
  bool has_user_weights = false;
  IdTable user_ids, item_ids;
  std::optional<SeenItems> seen;

  std::int64_t n_items() const { return modalities[0].items.rows; }
  std::int64_t n_users() const { return modalities[0].users ? modalities[0].users->rows : -1; }
};

/// Views `file`, which must outlive it. Throws FormatError.
Retrieval parse_retrieval(const ModelFile& file);

}  // namespace recfuse
