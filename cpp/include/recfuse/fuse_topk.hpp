// Weighted fusion of modalities and exact top-k in one pass; one modality of weight 1 is plain retrieval.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "recfuse/fusion.hpp"
#include "recfuse/views.hpp"

namespace recfuse {

enum class Metric { kDot, kCosine };

/// By their Python names; std::invalid_argument lists the names that exist.
Metric metric_named(std::string_view name, const std::string& op = "fuse_topk");
Fusion fusion_named(std::string_view name);
Missing missing_named(std::string_view name);

struct FusedItemsArgs {
  std::span<const MatrixView<const float>> items;  // one per modality: (n_items, dim_m)
  MatrixView<const std::uint8_t> present = {};     // (n_items, n_modalities) or null: every item has all
  Metric metric = Metric::kCosine;
  int num_threads = 0;
  std::span<const std::string> names = {};  // of the modalities, for messages; may be empty
  std::string op = "fuse_topk";             // what messages begin with
  // The index keeps a rounded copy of the items, a quarter of their size, if it is asked often and this allows it.
  std::int64_t most_kept_bytes = std::numeric_limits<std::int64_t>::max();
};

struct FuseTopkArgs {
  std::span<const MatrixView<const float>> queries;  // one per modality: (n_queries, dim_m)
  MatrixView<const double> weights;                  // (1 or n_queries, n_modalities), finite
  std::int64_t k = 10;
  Fusion fusion = Fusion::kSum;
  Missing missing = Missing::kRenormalise;
  CsrView exclude = {};                          // (n_queries, n_items): stored entries are left out
  CsrView allow = {};                            // the same shape: nothing else is admitted
  std::span<const std::int32_t> allow_ids = {};  // for all queries; any order, repeats are harmless
  bool has_allow_ids = false;                    // an empty list admits nothing
  int num_threads = 0;
};

/// Where pairs of a query and an item stand among all items that the query may get, from 1; 0 for an item that is not
/// ranked, or excluded. One element per pair, but for n_ranked.
struct PairRanks {
  std::span<std::int32_t> rank;      // by score, then id: the place in a list of topk that is long enough
  std::span<std::int32_t> first;     // 1 and the items that score more
  std::span<std::int32_t> last;      // the same and the others that score the same
  std::span<std::int32_t> n_ranked;  // (n_queries): items that are ranked at all
};

/// Every check of the values, for whatever searches; std::invalid_argument or std::out_of_range says what is wrong.
void validate(const FusedItemsArgs& args);
void validate(const FuseTopkArgs& args, const FusedItemsArgs& items, const TopkOut& out, MatrixView<double> parts);
/// What scoring pairs needs: queries and weights that fit the items, and pairs that fit both.
void validate_pairs(const FuseTopkArgs& args, const FusedItemsArgs& items, const CsrView& pairs);
/// The same, and room for the ranks of all.
void validate_ranks(const FuseTopkArgs& args, const FusedItemsArgs& items, const CsrView& pairs, const PairRanks& out);

/// How an index searches at present, and why.
struct SearchPlan {
  std::string screen;  // of linear fusions: "float32", "int8" or "int16"; of others always "float32"
  std::string reason;
  std::int64_t item_bytes = 0;     // of the matrices that the index has views of
  std::int64_t rounded_bytes = 0;  // of their rounded copy
  std::int64_t unit_classes = 0;   // how many sizes of items the copy distinguishes
  std::string order = "ids";       // of the rounded items: "norms", from the longest down, or "neighbourhoods"
  std::string order_reason;        // empty in float32
  double skipped_by_norm = -1;     // share of the pairs of query and item, in a sample; -1 where there was none
  double scored_per_query = -1;    // items that the last trial scored canonically; -1 before there was one
};

/// Items of several modalities, ready to be searched. Keeps views: the matrices must outlive it.
///
/// Similarity of a modality: s_m = <q_m, x_m>, or <q_m, x_m> / (|q_m| |x_m|) for the cosine (0 for a zero vector).
/// Terms, over the modalities that the item has (P) and whose weight is not 0:
///   sum       sum_P w_m s_m * (sum |w_m| / sum_P |w_m|)   with Missing::kZero without the factor
///   average   sum_P w_m s_m / sum_P |w_m|                 with Missing::kZero over sum |w_m|
///   product, max, min   of the terms w_m s_m;             with Missing::kZero a missing one is 0
/// An item without any such modality is not ranked (Missing::kRenormalise).
/// Scores are canonical (canonical.hpp): float64 in the order of the modalities, rounded once.
class FusedIndex {
 public:
  explicit FusedIndex(const FusedItemsArgs& args);
  ~FusedIndex();
  FusedIndex(FusedIndex&&) noexcept;
  FusedIndex& operator=(FusedIndex&&) noexcept;

  std::int64_t n_items() const;
  std::int64_t n_modalities() const;
  SearchPlan plan() const;

  /// Best k items of every query by score descending, then id ascending; never a NaN. The result depends on
  /// neither num_threads nor the instruction set. `parts`, if not null, is (n_queries, k * n_modalities): the
  /// terms of every score, which for sum and average add up to it; 0 for padding, NaN for a modality without
  /// a term in product, max and min. Throws std::invalid_argument, std::out_of_range.
  void topk(const FuseTopkArgs& args, const TopkOut& out, MatrixView<double> parts = {}) const;

  /// The same scores for given pairs: those of the entries of `pairs` (n_queries, n_items), in its order, NaN for
  /// what is not ranked. Of `args` the filters and k are not used. `parts`: (pairs.nnz(), n_modalities) or null.
  void score_pairs(const FuseTopkArgs& args, const CsrView& pairs, std::span<float> out,
                   MatrixView<double> parts = {}) const;

  /// Ranks of given pairs in lists of all items but `args.exclude`, which are never made: what is better than each
  /// is counted. Of `args` the lists of what is allowed and k are not used. The result depends on neither num_threads
  /// nor the instruction set. Throws as topk.
  void rank_pairs(const FuseTopkArgs& args, const CsrView& pairs, const PairRanks& out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace recfuse
