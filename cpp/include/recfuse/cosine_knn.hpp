// Similarity of the rows of a sparse matrix, and recommendations from it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "recfuse/canonical.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

enum class Norm { kFull, kCorated };

/// By its Python name; std::invalid_argument lists the names that exist.
Norm norm_named(std::string_view name);

struct CosineKnnArgs {
  CsrView matrix;  // with values
  std::int64_t k = 20;
  Norm norm = Norm::kFull;       // kCorated: over the columns that both rows have
  double shrinkage = 0.0;        // added to the product of the norms
  std::int64_t min_support = 1;  // columns that both rows must have
  int num_threads = 0;
};

/// For every row the k most similar other rows that share min_support columns with it: score descending, then id
/// ascending, padded with -1 and -inf. Dot products and norms are float64 sums in ascending column order; stored zeros
/// count as shared columns. The result depends on neither num_threads nor the instruction set.
/// Throws std::invalid_argument, std::out_of_range.
void cosine_knn(const CosineKnnArgs& args, const TopkOut& out);

/// The checks of cosine_knn().
void validate(const CosineKnnArgs& args, const TopkOut& out);

/// What a search needs to know of the rows, whatever device adds them up.
struct CosineFacts {
  std::vector<double> squared;  // |row|^2 in float64, in ascending column order
  bool counting;                // sums of whole numbers below 2^31, exact in any order, give what the score needs:
  bool ones;                    // every value times the scale is one, here always 1
  bool positive;                // every value is
  float scale;                  // a power of two
};

CosineFacts cosine_facts(const CosineKnnArgs& args);

struct NeighbourTopkArgs {
  CsrView queries;         // (n_queries, n_rows), with values
  CsrView neighbours;      // (n_rows, n_items), with values; a row may have its items in any order
  bool normalise = false;  // divide by sum_j |queries[q, j]| over the terms of the score
  CsrView exclude = {};    // (n_queries, n_items): stored entries are left out
  CsrView allow = {};      // the same shape: nothing else is admitted
  std::span<const std::int32_t> allow_ids = {};  // for all queries; any order, repeats are harmless
  bool has_allow_ids = false;                    // an empty list admits nothing
  std::int64_t k = 10;
  int num_threads = 0;
};

/// For every query the k best items of its product with the matrix, among those that have a term:
///   score(q, i) = sum_j queries[q, j] * neighbours[j, i]
/// in float64 in ascending j, rounded once. Order and padding as above; the result depends on neither num_threads nor
/// the instruction set. Throws std::invalid_argument, std::out_of_range.
void neighbour_topk(const NeighbourTopkArgs& args, const TopkOut& out);

/// The checks of neighbour_topk().
void validate(const NeighbourTopkArgs& args, const TopkOut& out);

/// Neighbours that histories meet one at a time: neighbour_topk() looks at all neighbours first, which many histories
/// pay for and one does not. Calls may overlap.
class NeighbourScorer {
 public:
  /// Keeps a view of (n_rows, n_items). Throws as neighbour_topk().
  explicit NeighbourScorer(const CsrView& neighbours);
  ~NeighbourScorer();
  NeighbourScorer(NeighbourScorer&&) noexcept;
  NeighbourScorer& operator=(NeighbourScorer&&) noexcept;

  /// The list of neighbour_topk() for a history of one row, without the items of `exclude`, in any order.
  void topk(const CsrView& history, std::span<const std::int32_t> exclude, const TopkOut& out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace recfuse
