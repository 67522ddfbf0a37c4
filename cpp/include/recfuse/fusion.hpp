// How the similarities of several modalities become one score: the formulas of FusedIndex, written once.
#pragma once

#include "recfuse/canonical.hpp"

namespace recfuse {

enum class Fusion { kSum, kAverage, kProduct, kMax, kMin };
enum class Missing { kRenormalise, kZero };

RECFUSE_HD static inline bool is_linear(Fusion fusion) { return fusion == Fusion::kSum || fusion == Fusion::kAverage; }

/// What multiplies the weights of an item with these modalities; 0 where the item is not ranked.
RECFUSE_HD static inline double presence_factor(Fusion fusion, Missing missing, const double* weights,
                                                const char* present, int n_modalities) {
  double all = 0, here = 0;
  for (int m = 0; m < n_modalities; ++m) {
    const double w = weights[m] < 0 ? -weights[m] : weights[m];
    all += w;
    if (present[m]) here += w;
  }
  if (missing == Missing::kRenormalise && here == 0) return 0;
  const double total = missing == Missing::kRenormalise ? here : all;
  if (fusion == Fusion::kAverage) return 1 / total;
  return fusion == Fusion::kSum && total != all ? all / total : 1;
}

/// The fused score in float64. similarities[m] is looked at once, where modality m is present and counts; terms[m] (may
/// be null) receives what it contributes.
template <class Similarities>
RECFUSE_HD static inline double fuse_terms(Fusion fusion, Missing missing, const double* weights,
                                           const Similarities& similarities, const char* present, double factor,
                                           int n_modalities, double* terms) {
  double score = 0;
  bool first = true;
  for (int m = 0; m < n_modalities; ++m) {
    // A modality of weight 0 is as good as absent, whatever its similarity is (a NaN, say).
    const bool counts = weights[m] != 0 && (present[m] || missing == Missing::kZero);
    if (terms != nullptr) terms[m] = is_linear(fusion) ? 0.0 : static_cast<double>(NAN);
    if (!counts) continue;
    const double term = present[m] ? weights[m] * factor * similarities[m] : 0.0;
    if (terms != nullptr) terms[m] = term;
    if (is_linear(fusion)) {
      score += term;
    } else if (first) {
      score = term;
    } else if (fusion == Fusion::kProduct) {
      score *= term;
    } else if (term != term) {
      score = term;  // a comparison would drop the NaN
    } else if (fusion == Fusion::kMax ? term > score : term < score) {
      score = term;
    }
    first = false;
  }
  return score;
}

}  // namespace recfuse
