// A model that Python wrote, ready to be asked: by user, by vector, for similar items. The bytes of Python's Retriever.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "recfuse/fuse_topk.hpp"
#include "recfuse/model_file.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

/// What users or items go by.
enum class IdKind {
  kRow,      // their rows, from 0
  kInteger,  // integers of 64 bits
  kString,   // UTF-8
  kLabel,    // anything else that Python knows, as its JSON: {"UUID": "..."}
};

/// What a request asks beside its users or vectors.
struct QueryOptions {
  std::int64_t k = 10;
  /// One per modality, for all of the request; empty: those of the user, or of the model.
  std::span<const double> weights = {};
  /// Leave out what the model knows the user to have.
  bool exclude_seen = true;
  /// Rows of items that are left out, in any order.
  std::span<const std::int32_t> exclude = {};
  /// With has_allow, nothing else is admitted; an empty list admits nothing.
  std::span<const std::int32_t> allow = {};
  bool has_allow = false;
  int num_threads = 0;
};

struct ModalityInfo {
  std::string name;
  std::int64_t dim = 0;  // of the vectors that search() takes
  double weight = 0;     // where neither a request nor a user has another
};

/// An open model: the file is mapped and its arrays are used where they lie. Opening takes the same time whatever the
/// size; the first request, or prepare(), looks at all items. Every method may be called from several threads at once.
///
/// FormatError can be thrown by any method: what is inside of arrays (seen items, ids) is checked where it is used.
class Model {
 public:
  /// Throws FormatError, also for a model without a dense search, and std::system_error.
  explicit Model(const std::string& path, Verify verify = Verify::kSmall);
  explicit Model(ModelFile file);
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  std::int64_t n_items() const;
  /// Without value where users have no vectors: recommend() throws, search() and similar() do not.
  std::optional<std::int64_t> n_users() const;
  std::span<const ModalityInfo> modalities() const;
  const ModelFile& file() const;

  IdKind user_id_kind() const;
  IdKind item_id_kind() const;
  /// The row of an id; nothing where it is unknown, or ids are of another kind.
  std::optional<std::int64_t> user_row(std::int64_t id) const;
  std::optional<std::int64_t> user_row(std::string_view id) const;
  std::optional<std::int64_t> item_row(std::int64_t id) const;
  std::optional<std::int64_t> item_row(std::string_view id) const;
  /// The id of a row as text, integers in decimals. Throws std::out_of_range.
  std::string user_id(std::int64_t row) const;
  std::string item_id(std::int64_t row) const;
  /// The id of a row where ids are integers or rows; std::invalid_argument elsewhere.
  std::int64_t user_integer(std::int64_t row) const;
  std::int64_t item_integer(std::int64_t row) const;

  /// Makes the index now.
  void prepare() const;

  /// The best items of users, by their rows. `out` is (users.size(), k): score descending, then row ascending, -1 and
  /// -inf for padding. `parts`, if not null: (users.size(), k * modalities), the terms of the scores. Throws
  /// std::out_of_range for a row that there is not, std::invalid_argument.
  void recommend(std::span<const std::int64_t> users, const QueryOptions& options, const TopkOut& out,
                 MatrixView<double> parts = {}) const;

  /// The best items for vectors, one matrix (n, dim) per modality in the order of modalities(). One without data is not
  /// asked: its weight is 0.
  void search(std::span<const MatrixView<const float>> vectors, const QueryOptions& options, const TopkOut& out,
              MatrixView<double> parts = {}) const;

  /// The items most like these, by weighted cosines; never the item itself. Of options.weights those of modalities that
  /// the model does not compare must be 0.
  void similar(std::span<const std::int64_t> items, const QueryOptions& options, const TopkOut& out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace recfuse
