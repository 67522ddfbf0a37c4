// A block of queries, weighted and packed for the screen, with the error bound that makes the screen exact.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/fused_items.hpp"

namespace recfuse {

/// Weighted queries of one call. A screened value v of (query, item) satisfies |v - score| <= bound(query, item),
/// where `score` is the canonical, rounded score.
class Queries {
 public:
  Queries(const FusedItems& items, const FuseTopkArgs& args, const ScanOrder& order);

  std::int64_t size() const { return args_.queries[0].rows; }
  const FuseTopkArgs& args() const { return args_; }
  const FusedItems& items() const { return items_; }

  /// False for a query whose values leave the range of the bound: all its items are scored canonically.
  bool screenable(std::int64_t q) const { return screenable_[static_cast<std::size_t>(q)] != 0; }

  /// True for a query of zeros (where its weights are not): every regular item that is ranked scores 0.
  bool constant(std::int64_t q) const { return constant_[static_cast<std::size_t>(q)] != 0; }

  /// False where no scan is needed: queries out of range, of zeros (whose ties no screen can part), or with so short an
  /// allow-list that its items are scored at once.
  bool scanned(std::int64_t q) const;

  /// presence_factor() of the items of `group`; 0 where they are not ranked.
  double factor(std::int64_t q, int group) const {
    return factors_[static_cast<std::size_t>(q) * items_.groups().size() + static_cast<std::size_t>(group)];
  }

  /// Bound for items of `group` whose screen norms are at most `norms` (one per modality).
  double bound(std::int64_t q, int group, const float* norms) const;

  /// The canonical score; `terms` as in fuse_terms(). NaN where the item is not ranked.
  float score(const kernels::KernelTable& kernels, std::int64_t q, std::int32_t id, double* terms = nullptr) const;

  /// A query and an item.
  struct Pair {
    std::int64_t query;
    std::int32_t id;
  };
  /// Four canonical scores, faster than one by one.
  void score_four(const kernels::KernelTable& kernels, const Pair* pairs, float* scores) const;

  /// Fused value from the screened, weighted similarities of the modalities (product, max, min).
  float combine(std::int64_t q, int group, const float* similarities, std::int64_t stride) const;

  /// Interleaves queries [first, last), at most mr, all modalities behind one another.
  void pack(const kernels::KernelTable& kernels, std::int64_t first, std::int64_t last, float* panel) const;

  /// What the query is multiplied with before it meets items (of length 1, for the cosine): weight, and 1 / |q_m|.
  double scale(std::int64_t q, int m) const { return weights(q)[m] * inverse_norms_[offset(q, m)]; }
  /// At least the norm of the query times that.
  double screen_norm(std::int64_t q, int m) const { return screen_norms_[offset(q, m)]; }
  /// The product of the query times that with a vector.
  double weighted_product(std::int64_t q, int m, const double* x) const;

  /// Query q times weight (and 1 / |q_m|) of modality m.
  void weighted(std::int64_t q, int m, float* out) const;

 private:
  const double* weights(std::int64_t q) const { return args_.weights.row(args_.weights.rows == 1 ? 0 : q); }
  std::size_t offset(std::int64_t q, int m) const {
    return static_cast<std::size_t>(q) * static_cast<std::size_t>(items_.n_modalities()) + static_cast<std::size_t>(m);
  }
  bool counts(std::int64_t q, int m, std::int32_t id) const;
  double similarity(std::int64_t q, int m, std::int32_t id, double dot) const;
  float fused(std::int64_t q, std::int32_t id, const double* similarities, double* terms) const;
  bool in_range(std::int64_t q, const std::vector<float>& largest_norms) const;

  const FusedItems& items_;
  const FuseTopkArgs& args_;
  std::int64_t n_scanned_items_;
  double relative_error_;              // of a screened inner product, in units of the product of the norms
  double absolute_error_;              // what underflow can add
  std::vector<double> inverse_norms_;  // (queries, modalities): 1 / |q_m|, 1 for the dot product
  std::vector<double> screen_norms_;   // (queries, modalities): |w_m| |q_m| inverse_norm
  std::vector<double> factors_;        // (queries, groups)
  std::vector<char> screenable_;
  std::vector<char> constant_;
};

}  // namespace recfuse
