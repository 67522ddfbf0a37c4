// Items and queries on the device, and the canonical score of a pair of them.
#pragma once

#include <cstdint>

#include "portable.cuh"
#include "recfuse/canonical.hpp"
#include "recfuse/fusion.hpp"

namespace recfuse::cuda {

/// Norms outside leave the range in which the bound of the screen holds.
RECFUSE_DEVICE bool in_screen_range(double norm) { return norm == 0.0 || (norm >= 0x1p-50 && norm <= 0x1p50); }

/// A matrix per modality, with rows of its own width.
struct Matrices {
  const float* const* data = nullptr;  // (modalities)
  const std::int64_t* cols = nullptr;  // (modalities)
  int n_modalities = 0;

  RECFUSE_DEVICE const float* row(int m, std::int64_t i) const { return data[m] + i * cols[m]; }
};

/// Where in an ascending list `id` is, or would be.
RECFUSE_DEVICE std::int64_t first_not_below(const std::int32_t* sorted, std::int64_t n, std::int32_t id) {
  std::int64_t begin = 0, end = n;
  while (begin < end) {
    const std::int64_t middle = (begin + end) / 2;
    if (sorted[middle] < id) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

struct Items {
  Matrices matrices;
  std::int64_t n = 0;
  bool cosine = false;
  const double* inverse_norms = nullptr;  // (n, modalities); of the cosine only
  const std::int32_t* groups = nullptr;   // (n): which modalities the item has
  const char* present = nullptr;          // (groups, modalities)
  int n_groups = 1;
  std::int64_t first = 0;             // the rows are items [first, first + n)
  const std::int32_t* ids = nullptr;  // or, where not null, these: they ascend

  RECFUSE_DEVICE std::int32_t id(std::int64_t row) const {
    return ids == nullptr ? static_cast<std::int32_t>(first + row) : ids[row];
  }
  /// Where the vectors of an item lie; -1: not here.
  RECFUSE_DEVICE std::int64_t row_of(std::int32_t id) const {
    const std::int64_t row = ids == nullptr ? id - first : first_not_below(ids, n, id);
    return row >= 0 && row < n && this->id(row) == id ? row : -1;
  }
};

struct Rule {
  Fusion fusion = Fusion::kSum;
  Missing missing = Missing::kRenormalise;
};

struct Queries {
  Matrices matrices;
  std::int64_t n = 0;
  Rule rule;
  const double* weights = nullptr;  // (1 or n, modalities)
  std::int64_t n_weights = 1;
  const double* inverse_norms = nullptr;  // (n, modalities)
  const double* factors = nullptr;        // (n, groups): presence_factor()

  RECFUSE_DEVICE const double* weights_of(std::int64_t q) const {
    return weights + (n_weights == 1 ? 0 : q) * matrices.n_modalities;
  }
  RECFUSE_DEVICE double factor(std::int64_t q, int group, int n_groups) const { return factors[q * n_groups + group]; }
};

/// The similarities of a query and an item, each computed when it is looked at.
struct Similarities {
  const Items& items;
  const Queries& queries;
  std::int64_t q, row;  // of the item

  RECFUSE_DEVICE double operator[](int m) const {
    const double dot = canonical_dot(queries.matrices.row(m, q), items.matrices.row(m, row), items.matrices.cols[m]);
    if (!items.cosine) return dot;
    const int n = items.matrices.n_modalities;
    return dot * (queries.inverse_norms[q * n + m] * items.inverse_norms[row * n + m]);
  }
};

/// The canonical score in float32; NaN where the item is not ranked. `terms` (may be null): as in fuse_terms().
RECFUSE_DEVICE float score(const Items& items, const Queries& queries, std::int64_t q, std::int64_t row,
                           double* terms) {
  const int n_modalities = items.matrices.n_modalities, group = items.groups[row];
  const double factor = queries.factor(q, group, items.n_groups);
  const double fused =
      fuse_terms(queries.rule.fusion, queries.rule.missing, queries.weights_of(q), Similarities{items, queries, q, row},
                 items.present + static_cast<std::int64_t>(group) * n_modalities, factor, n_modalities, terms);
  return factor == 0 ? static_cast<float>(NAN) : static_cast<float>(fused);
}

/// Which items a query may have: rows of a CSR, and a list for all queries.
struct Filters {
  const std::int64_t* exclude_indptr = nullptr;  // null: nothing is left out
  const std::int32_t* exclude = nullptr;
  const std::int64_t* allow_indptr = nullptr;  // null: everything is admitted
  const std::int32_t* allow = nullptr;
  const std::uint32_t* allowed = nullptr;  // a bit per item; null: everything is admitted

  RECFUSE_DEVICE static bool contains(const std::int32_t* sorted, std::int64_t n, std::int32_t id) {
    const std::int64_t at = first_not_below(sorted, n, id);
    return at < n && sorted[at] == id;
  }
  RECFUSE_DEVICE static bool in_row(const std::int64_t* indptr, const std::int32_t* indices, std::int64_t q,
                                    std::int32_t id) {
    const std::int64_t begin = indptr[q] - indptr[0];
    return contains(indices + begin, indptr[q + 1] - indptr[q], id);
  }
  RECFUSE_DEVICE bool admit(std::int64_t q, std::int32_t id) const {
    if (allowed != nullptr && (allowed[id / 32] >> (id % 32) & 1U) == 0) return false;
    if (exclude_indptr != nullptr && in_row(exclude_indptr, exclude, q, id)) return false;
    return allow_indptr == nullptr || in_row(allow_indptr, allow, q, id);
  }
};

}  // namespace recfuse::cuda
