#include "recfuse/model.hpp"

#include <algorithm>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "model/id_table.hpp"
#include "model/retrieval.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kQueriesPerBatch = 16384;  // whose vectors are gathered at a time
constexpr std::int64_t kMostK = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kSmallBytes = 256 << 20;

/// An index keeps a rounded copy of a quarter of what is available, as in Python; of small items always.
std::int64_t most_kept_bytes(std::int64_t item_bytes) {
  if (item_bytes <= kSmallBytes) return item_bytes;
  std::ifstream file("/proc/meminfo");
  for (std::string word; file >> word;) {
    std::int64_t kilobytes = 0;
    if (word == "MemAvailable:" && file >> kilobytes) return kilobytes * 1024 / 4;
  }
  return item_bytes;
}

void check_row(std::int64_t row, std::int64_t n, const char* what) {
  if (row >= 0 && row < n) return;
  throw std::out_of_range(std::string(what) + " must be in [0, " + std::to_string(n) + "); got " + std::to_string(row));
}

/// Items of a search, with what they need beside the mapped file.
class Index {
 public:
  void add(const Modality& modality, const Vectors& vectors, std::span<const std::uint8_t> present, std::size_t column,
           std::size_t n_columns) {
    names_.push_back(modality.name);
    views_.push_back(vectors.matrix(storage_.emplace_back()));
    if (present.empty()) return;
    for (std::size_t i = 0; i * n_columns < present.size(); ++i) flags_.push_back(present[i * n_columns + column] != 0);
  }

  void finish(Metric metric, bool has_present) {
    const std::size_t n = views_.size();
    const auto n_items = static_cast<std::size_t>(views_[0].rows);
    std::vector<std::uint8_t> rows(flags_.size());
    for (std::size_t m = 0; m < n; ++m) {
      for (std::size_t i = 0; has_present && i < n_items; ++i) rows[i * n + m] = flags_[m * n_items + i];
    }
    std::int64_t bytes = 0;
    for (const auto& view : views_) bytes += view.rows * view.cols * std::int64_t{sizeof(float)};
    FusedItemsArgs args;
    args.items = views_;
    if (has_present) args.present = {rows.data(), views_[0].rows, static_cast<std::int64_t>(n)};
    args.metric = metric;
    args.names = names_;
    args.most_kept_bytes = most_kept_bytes(bytes);
    index_.emplace(args);
    flags_ = {};
  }

  const FusedIndex& search() const { return *index_; }
  std::span<const MatrixView<const float>> views() const { return views_; }

 private:
  std::vector<std::string> names_;
  std::vector<MatrixView<const float>> views_;
  std::vector<std::vector<float>> storage_;
  std::vector<std::uint8_t> flags_;  // modality by modality
  std::optional<FusedIndex> index_;
};

/// Items that queries leave out, row by row.
class Exclusions {
 public:
  void end_row(std::vector<std::int32_t>& items) {
    std::sort(items.begin(), items.end());
    items.erase(std::unique(items.begin(), items.end()), items.end());
    indices_.insert(indices_.end(), items.begin(), items.end());
    indptr_.push_back(static_cast<std::int64_t>(indices_.size()));
    items.clear();
  }

  CsrView view(std::int64_t n_items) const {
    if (indices_.empty()) return {};
    return {indptr_.data(), indices_.data(), nullptr, static_cast<std::int64_t>(indptr_.size()) - 1, n_items};
  }

 private:
  std::vector<std::int64_t> indptr_{0};
  std::vector<std::int32_t> indices_;
};

TopkOut rows_of(const TopkOut& out, std::int64_t first, std::int64_t n) {
  return {{out.ids.row(first), n, out.ids.cols, out.ids.stride},
          {out.scores.row(first), n, out.scores.cols, out.scores.stride}};
}

}  // namespace

struct Model::State {
  ModelFile file;
  Retrieval retrieval;
  std::vector<ModalityInfo> infos;
  mutable std::mutex mutex;  // of the two that are made at their first use
  mutable std::unique_ptr<Index> index, similar_index;

  explicit State(ModelFile opened) : file(std::move(opened)), retrieval(parse_retrieval(file)) {
    for (std::size_t m = 0; m < retrieval.modalities.size(); ++m) {
      infos.push_back({retrieval.modalities[m].name, retrieval.modalities[m].items.dim, retrieval.weights[m]});
    }
  }

  std::size_t n_modalities() const { return infos.size(); }
  bool is_compared(std::size_t m) const { return retrieval.similar_weights[m] != 0; }

  bool has(std::int64_t item, std::size_t m) const {
    return !retrieval.has_present || retrieval.present[static_cast<std::size_t>(item) * n_modalities() + m] != 0;
  }

  const Index& made(std::unique_ptr<Index>& kept, bool similar) const {
    const std::lock_guard lock(mutex);
    if (kept) return *kept;
    auto made = std::make_unique<Index>();
    for (std::size_t m = 0; m < n_modalities(); ++m) {
      const Modality& modality = retrieval.modalities[m];
      if (similar && !is_compared(m)) continue;
      made->add(modality, similar ? modality.likeness() : modality.items, retrieval.present, m, n_modalities());
    }
    made->finish(similar ? Metric::kCosine : retrieval.metric, retrieval.has_present);
    kept = std::move(made);
    return *kept;
  }

  const Index& for_search() const { return made(index, false); }

  const Index& for_similar() const {
    bool any = false;
    for (std::size_t m = 0; m < n_modalities(); ++m) any |= is_compared(m);
    if (!any) throw std::invalid_argument("similar: model must have a modality by which items are alike; got none");
    return made(similar_index, true);
  }

  void check(const QueryOptions& options, const char* op, std::int64_t n, const TopkOut& out,
             const MatrixView<double>& parts) const {
    const std::string name(op);
    const auto modalities = static_cast<std::int64_t>(n_modalities());
    if (options.k < 1 || options.k > kMostK) {
      throw std::invalid_argument(name + ": k must be in [1, 2147483647]; got " + std::to_string(options.k));
    }
    if (!options.weights.empty() && options.weights.size() != n_modalities()) {
      throw std::invalid_argument(name + ": weights must be " + std::to_string(modalities) +
                                  ", one per modality; got " + std::to_string(options.weights.size()));
    }
    if (out.ids.rows != n || out.ids.cols != options.k || out.scores.rows != n || out.scores.cols != options.k) {
      throw std::invalid_argument(name + ": out must have shape (" + std::to_string(n) + ", " +
                                  std::to_string(options.k) + ") twice; got another");
    }
    if (parts.data != nullptr && (parts.rows != n || parts.cols != options.k * modalities)) {
      throw std::invalid_argument(name + ": parts must have k terms per modality and query; got another shape");
    }
    const std::string exclude = name + ": exclude";
    for (const std::int32_t item : options.exclude) check_row(item, retrieval.n_items(), exclude.c_str());
  }

  /// The weight of the fallback is 1 for a query of which no weighted modality has a vector other than 0.
  void apply_fallback(std::span<const MatrixView<const float>> queries, std::int64_t q, double* weights) const {
    if (!retrieval.fallback) return;
    for (std::size_t m = 0; m < queries.size(); ++m) {
      const float* const row = queries[m].row(q);
      // A NaN is other than 0, too.
      if (weights[m] != 0 && std::any_of(row, row + queries[m].cols, [](float x) { return !(x == 0); })) return;
    }
    weights[*retrieval.fallback] = 1;
  }

  void run(std::span<const MatrixView<const float>> queries, const std::vector<double>& weights,
           const Exclusions& exclusions, const QueryOptions& options, const Index& searched, Missing missing,
           const TopkOut& out, const MatrixView<double>& parts) const {
    FuseTopkArgs args;
    args.queries = queries;
    args.weights = {weights.data(), queries[0].rows, static_cast<std::int64_t>(queries.size())};
    args.k = options.k;
    args.missing = missing;
    args.exclude = exclusions.view(retrieval.n_items());
    args.allow_ids = options.allow;
    args.has_allow_ids = options.has_allow;
    args.num_threads = options.num_threads;
    searched.search().topk(args, out, parts);
  }
};

Model::Model(const std::string& path, Verify verify) : Model(ModelFile(path, verify)) {}
Model::Model(ModelFile file) : state_(std::make_unique<State>(std::move(file))) {}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

std::int64_t Model::n_items() const { return state_->retrieval.n_items(); }

std::optional<std::int64_t> Model::n_users() const {
  const std::int64_t n = state_->retrieval.n_users();
  return n < 0 ? std::nullopt : std::optional(n);
}

std::span<const ModalityInfo> Model::modalities() const { return state_->infos; }
const ModelFile& Model::file() const { return state_->file; }
IdKind Model::user_id_kind() const { return state_->retrieval.user_ids.kind(); }
IdKind Model::item_id_kind() const { return state_->retrieval.item_ids.kind(); }

std::optional<std::int64_t> Model::user_row(std::int64_t id) const { return state_->retrieval.user_ids.find(id); }
std::optional<std::int64_t> Model::user_row(std::string_view id) const { return state_->retrieval.user_ids.find(id); }
std::optional<std::int64_t> Model::item_row(std::int64_t id) const { return state_->retrieval.item_ids.find(id); }
std::optional<std::int64_t> Model::item_row(std::string_view id) const { return state_->retrieval.item_ids.find(id); }

namespace {

std::string text_of(const IdTable& table, std::int64_t row, const char* what) {
  check_row(row, table.size(), what);
  const bool is_text = table.kind() == IdKind::kString || table.kind() == IdKind::kLabel;
  return is_text ? std::string(table.text(row)) : std::to_string(table.integer(row));
}

std::int64_t integer_of(const IdTable& table, std::int64_t row, const char* what) {
  check_row(row, table.size(), what);
  if (table.kind() == IdKind::kRow || table.kind() == IdKind::kInteger) return table.integer(row);
  throw std::invalid_argument(std::string(what) + " must be of a model whose ids are integers; got one of text");
}

}  // namespace

std::string Model::user_id(std::int64_t row) const { return text_of(state_->retrieval.user_ids, row, "user_id: row"); }
std::string Model::item_id(std::int64_t row) const { return text_of(state_->retrieval.item_ids, row, "item_id: row"); }
std::int64_t Model::user_integer(std::int64_t row) const {
  return integer_of(state_->retrieval.user_ids, row, "user_integer: row");
}
std::int64_t Model::item_integer(std::int64_t row) const {
  return integer_of(state_->retrieval.item_ids, row, "item_integer: row");
}

void Model::prepare() const { state_->for_search(); }

void Model::recommend(std::span<const std::int64_t> users, const QueryOptions& options, const TopkOut& out,
                      MatrixView<double> parts) const {
  const State& s = *state_;
  const Retrieval& r = s.retrieval;
  if (r.n_users() < 0) {
    throw std::invalid_argument("recommend: model must have vectors of users; got one of items alone: use search");
  }
  const auto n_users = static_cast<std::int64_t>(users.size());
  s.check(options, "recommend", n_users, out, parts);
  for (const std::int64_t user : users) check_row(user, r.n_users(), "recommend: users");
  const Index& index = s.for_search();
  const std::size_t n_modalities = s.n_modalities();
  for (std::int64_t first = 0; first < n_users; first += kQueriesPerBatch) {
    const std::int64_t n = std::min(n_users - first, kQueriesPerBatch);
    const auto batch = users.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n));
    std::vector<std::vector<float>> vectors(n_modalities);
    std::vector<MatrixView<const float>> queries;
    for (std::size_t m = 0; m < n_modalities; ++m) {
      const Vectors& of_users = *r.modalities[m].users;
      vectors[m].resize(static_cast<std::size_t>(n * of_users.dim));
      for (std::size_t q = 0; q < batch.size(); ++q) {
        of_users.copy_row(batch[q], vectors[m].data() + static_cast<std::int64_t>(q) * of_users.dim);
      }
      queries.emplace_back(vectors[m].data(), n, of_users.dim);
    }
    std::vector<double> weights;
    Exclusions exclusions;
    std::vector<std::int32_t> left_out;
    for (std::int64_t q = 0; q < n; ++q) {
      const auto user = static_cast<std::size_t>(batch[static_cast<std::size_t>(q)]);
      const bool own = r.has_user_weights && options.weights.empty();
      const double* const row = own                        ? r.user_weights.data() + user * n_modalities
                                : !options.weights.empty() ? options.weights.data()
                                                           : r.weights.data();
      weights.insert(weights.end(), row, row + n_modalities);
      s.apply_fallback(queries, q, weights.data() + static_cast<std::size_t>(q) * n_modalities);
      left_out.assign(options.exclude.begin(), options.exclude.end());
      if (options.exclude_seen && r.seen) r.seen->append(static_cast<std::int64_t>(user), left_out);
      exclusions.end_row(left_out);
    }
    const MatrixView<double> terms =
        parts.data == nullptr ? parts : MatrixView<double>(parts.row(first), n, parts.cols, parts.stride);
    s.run(queries, weights, exclusions, options, index, r.missing, rows_of(out, first, n), terms);
  }
}

void Model::search(std::span<const MatrixView<const float>> vectors, const QueryOptions& options, const TopkOut& out,
                   MatrixView<double> parts) const {
  const State& s = *state_;
  if (vectors.size() != s.n_modalities()) {
    throw std::invalid_argument("search: vectors must have " + std::to_string(s.n_modalities()) + " modalities; got " +
                                std::to_string(vectors.size()));
  }
  std::int64_t n = -1;
  for (const auto& matrix : vectors) n = matrix.data != nullptr && n < 0 ? matrix.rows : n;
  if (n < 0) throw std::invalid_argument("search: vectors must have data of a modality; got none");
  s.check(options, "search", n, out, parts);
  if (n == 0) return;
  std::vector<std::vector<float>> zeros(vectors.size());
  std::vector<MatrixView<const float>> queries;
  std::vector<double> weights;
  for (std::size_t m = 0; m < vectors.size(); ++m) {
    const std::int64_t dim = s.infos[m].dim;
    const bool given = vectors[m].data != nullptr;
    if (!given) zeros[m].resize(static_cast<std::size_t>(n * dim));
    queries.push_back(given ? vectors[m] : MatrixView<const float>(zeros[m].data(), n, dim));
    if (given && (vectors[m].rows != n || vectors[m].cols != dim)) {
      throw std::invalid_argument("search: vectors['" + s.infos[m].name + "'] must have shape (" + std::to_string(n) +
                                  ", " + std::to_string(dim) + "); got (" + std::to_string(vectors[m].rows) + ", " +
                                  std::to_string(vectors[m].cols) + ")");
    }
    const double weight = options.weights.empty() ? s.infos[m].weight : options.weights[m];
    weights.push_back(given || !options.weights.empty() ? weight : 0);
  }
  std::vector<double> per_query;
  Exclusions exclusions;
  std::vector<std::int32_t> left_out;
  for (std::int64_t q = 0; q < n; ++q) {
    per_query.insert(per_query.end(), weights.begin(), weights.end());
    s.apply_fallback(queries, q, per_query.data() + static_cast<std::size_t>(q) * weights.size());
    left_out.assign(options.exclude.begin(), options.exclude.end());
    exclusions.end_row(left_out);
  }
  s.run(queries, per_query, exclusions, options, s.for_search(), s.retrieval.missing, out, parts);
}

void Model::similar(std::span<const std::int64_t> items, const QueryOptions& options, const TopkOut& out) const {
  const State& s = *state_;
  const auto n = static_cast<std::int64_t>(items.size());
  s.check(options, "similar", n, out, {});
  for (const std::int64_t item : items) check_row(item, s.retrieval.n_items(), "similar: items");
  const Index& index = s.for_similar();
  if (n == 0) return;
  std::vector<std::size_t> compared;
  for (std::size_t m = 0; m < s.n_modalities(); ++m) {
    if (s.is_compared(m)) {
      compared.push_back(m);
    } else if (!options.weights.empty() && options.weights[m] != 0) {
      throw std::invalid_argument("similar: weights must be 0 where items are not compared; got another for '" +
                                  s.infos[m].name + "'");
    }
  }
  std::vector<std::vector<float>> vectors(compared.size());
  std::vector<MatrixView<const float>> queries;
  for (std::size_t c = 0; c < compared.size(); ++c) {
    const Vectors& likeness = s.retrieval.modalities[compared[c]].likeness();
    vectors[c].resize(static_cast<std::size_t>(n * likeness.dim));
    for (std::size_t q = 0; q < items.size(); ++q) {
      likeness.copy_row(items[q], vectors[c].data() + static_cast<std::int64_t>(q) * likeness.dim);
    }
    queries.emplace_back(vectors[c].data(), n, likeness.dim);
  }
  std::vector<double> weights;
  std::vector<std::int64_t> nothing;
  Exclusions exclusions;
  std::vector<std::int32_t> left_out;
  for (std::int64_t q = 0; q < n; ++q) {
    const std::int64_t item = items[static_cast<std::size_t>(q)];
    bool any = false;
    for (const std::size_t m : compared) {
      const double weight = options.weights.empty() ? s.retrieval.similar_weights[m] : options.weights[m];
      weights.push_back(s.has(item, m) ? weight : 0);
      any |= weights.back() != 0;
    }
    if (!any) {
      nothing.push_back(q);
      std::fill(weights.end() - static_cast<std::ptrdiff_t>(compared.size()), weights.end(), 1.0);
    }
    left_out.assign(options.exclude.begin(), options.exclude.end());
    left_out.push_back(static_cast<std::int32_t>(item));
    exclusions.end_row(left_out);
  }
  s.run(queries, weights, exclusions, options, index, Missing::kRenormalise, out, {});
  for (const std::int64_t q : nothing) {  // a search needs a weight; its list is none
    std::fill_n(out.ids.row(q), options.k, -1);
    std::fill_n(out.scores.row(q), options.k, -std::numeric_limits<float>::infinity());
  }
}

}  // namespace recfuse
