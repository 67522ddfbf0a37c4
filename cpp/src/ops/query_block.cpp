#include "ops/query_block.hpp"

#include <algorithm>
#include <cmath>

#include "isa/dispatch.hpp"
#include "recfuse/canonical.hpp"

namespace recfuse {
namespace {

constexpr double kHalfUlp = 0x1p-24;  // of float32
// Canonical scoring of one item costs about as much as screening this many (docs/performance.md).
constexpr std::int64_t kExactCost = 8;
constexpr int kFewModalities = 16;  // whose similarities fit on the stack

}  // namespace

Queries::Queries(const FusedItems& items, const FuseTopkArgs& args, const ScanOrder& order)
    : items_(items), args_(args), n_scanned_items_(static_cast<std::int64_t>(order.ids.size())) {
  const int n_modalities = items.n_modalities();
  // A float32 sum of n products, in any order, is off by at most n/(1 - n u) half ulps of the sum of their absolute
  // values (Higham 2002, section 3.1), which Cauchy-Schwarz bounds by the norms. 16 more cover the rounding of
  // weighted query, scaled item, presence factor and the final score.
  const double n_roundings = static_cast<double>(items.total_dim() + 4 * n_modalities + 16);
  const double unit = n_roundings * kHalfUlp;
  relative_error_ = unit < 0.25 ? unit / (1 - unit) : 1;

  std::vector<float> largest_norms(static_cast<std::size_t>(n_modalities), 0.0F);
  for (std::size_t i = 0; i < order.tile_norms.size(); ++i) {
    float& largest = largest_norms[i % static_cast<std::size_t>(n_modalities)];
    largest = std::max(largest, order.tile_norms[i]);
  }
  double norms = 1;
  for (const float norm : largest_norms) norms += norm;

  const auto n = static_cast<std::size_t>(size());
  const auto& kernels = kernel_table();
  inverse_norms_.resize(n * static_cast<std::size_t>(n_modalities));
  screen_norms_.resize(inverse_norms_.size());
  factors_.reserve(n * items.groups().size());
  screenable_.resize(n);
  constant_.resize(n);
  double largest_query = 0;
  for (std::int64_t q = 0; q < size(); ++q) {
    double sum = 0;
    for (int m = 0; m < n_modalities; ++m) {
      const auto& matrix = args.queries[static_cast<std::size_t>(m)];
      const double squared = kernels.canonical_dot(matrix.row(q), matrix.row(q), matrix.cols);
      inverse_norms_[offset(q, m)] = items.cosine() ? inverse_norm(squared) : 1.0;
      screen_norms_[offset(q, m)] =
          std::abs(weights(q)[m]) * std::sqrt(squared) * inverse_norms_[offset(q, m)] * (1 + 0x1p-40);
      sum += screen_norms_[offset(q, m)];
    }
    for (const auto& group : items.groups()) {
      factors_.push_back(presence_factor(args.fusion, args.missing, weights(q), group.present.data(), n_modalities));
    }
    screenable_[static_cast<std::size_t>(q)] = unit < 0.25 && in_range(q, largest_norms);
    if (screenable(q)) largest_query = std::max(largest_query, sum);
    constant_[static_cast<std::size_t>(q)] = screenable(q) && sum == 0;
  }
  // Underflow of a product or of a scaled element loses at most 2^-126 times the other operand.
  absolute_error_ = n_roundings * 0x1p-125 * (norms + largest_query);
}

bool Queries::scanned(std::int64_t q) const {
  const bool few = args_.allow.given() && args_.allow.row_size(q) * kExactCost < n_scanned_items_;
  return screenable(q) && !constant(q) && !few;
}

bool Queries::in_range(std::int64_t q, const std::vector<float>& largest_norms) const {
  double sum = 0, product = 1;
  for (int m = 0; m < items_.n_modalities(); ++m) {
    const double norm = screen_norms_[offset(q, m)];
    const double inverse = inverse_norms_[offset(q, m)];
    if (!in_screen_range(norm) || !in_screen_range(inverse)) return false;
    sum += norm * largest_norms[static_cast<std::size_t>(m)];
    product *= std::max(1.0, norm * largest_norms[static_cast<std::size_t>(m)]);
  }
  double largest_factor = 0;
  for (std::size_t g = 0; g < items_.groups().size(); ++g) {
    const double f = factor(q, static_cast<int>(g));
    if (!in_screen_range(f)) return false;
    largest_factor = std::max(largest_factor, f);
  }
  return sum * std::max(1.0, largest_factor) <= 0x1p100 && product <= 0x1p100;
}

double Queries::bound(std::int64_t q, int group, const float* norms) const {
  const auto& present = items_.groups()[static_cast<std::size_t>(group)].present;
  const double* query_norms = &screen_norms_[offset(q, 0)];
  double sum = 0, largest = 0, product = 1, inflated = 1;
  for (int m = 0; m < items_.n_modalities(); ++m) {
    if (!present[static_cast<std::size_t>(m)] || weights(q)[m] == 0) continue;
    const double size = query_norms[m] * norms[m];
    sum += size;
    largest = std::max(largest, size);
    product *= size;
    inflated *= size * (1 + relative_error_) + absolute_error_;
  }
  switch (args_.fusion) {
    case Fusion::kSum:
    case Fusion::kAverage:
      return factor(q, group) * (relative_error_ * sum + absolute_error_);
    case Fusion::kMax:
    case Fusion::kMin:
      return relative_error_ * largest + absolute_error_;
    case Fusion::kProduct:
      break;
  }
  return (inflated - product) + inflated * (relative_error_ + 0x1p-40) + absolute_error_;
}

/// Whether modality m has a say in the score.
bool Queries::counts(std::int64_t q, int m, std::int32_t id) const {
  const auto& group = items_.groups()[static_cast<std::size_t>(items_.group_of(id))];
  return group.present[static_cast<std::size_t>(m)] && weights(q)[m] != 0;
}

double Queries::similarity(std::int64_t q, int m, std::int32_t id, double dot) const {
  return items_.cosine() ? dot * (inverse_norms_[offset(q, m)] * items_.inverse_norm_of(id, m)) : dot;
}

float Queries::fused(std::int64_t q, std::int32_t id, const double* similarities, double* terms) const {
  const int group = items_.group_of(id);
  const char* present = items_.groups()[static_cast<std::size_t>(group)].present.data();
  const double f = factor(q, group);
  const double score =
      fuse_terms(args_.fusion, args_.missing, weights(q), similarities, present, f, items_.n_modalities(), terms);
  return f == 0 ? NAN : static_cast<float>(score);
}

float Queries::score(const kernels::KernelTable& kernels, std::int64_t q, std::int32_t id, double* terms) const {
  if (terms == nullptr && constant(q) && !items_.irregular(id)) {
    return factor(q, items_.group_of(id)) == 0 ? NAN : 0.0F;
  }
  const int n_modalities = items_.n_modalities();
  double on_stack[kFewModalities] = {};
  std::vector<double> on_heap;
  double* similarities = on_stack;
  if (n_modalities > kFewModalities) {
    on_heap.resize(static_cast<std::size_t>(n_modalities));
    similarities = on_heap.data();
  }
  for (int m = 0; m < n_modalities; ++m) {
    similarities[m] = 0;
    if (!counts(q, m, id)) continue;
    const auto& matrix = items_.matrix(m);
    const float* const query = args_.queries[static_cast<std::size_t>(m)].row(q);
    similarities[m] = similarity(q, m, id, kernels.canonical_dot(query, matrix.row(id), matrix.cols));
  }
  return fused(q, id, similarities, terms);
}

void Queries::score_four(const kernels::KernelTable& kernels, const Pair* pairs, float* scores) const {
  static_assert(kernels::kDots == 4);
  const int n_modalities = items_.n_modalities();
  bool alike = n_modalities <= kFewModalities;
  for (int i = 0; i < 4; ++i) {
    for (int m = 0; m < n_modalities; ++m) {
      alike = alike && counts(pairs[i].query, m, pairs[i].id) == counts(pairs[0].query, m, pairs[0].id);
    }
  }
  if (!alike) {
    for (int i = 0; i < 4; ++i) scores[i] = score(kernels, pairs[i].query, pairs[i].id);
    return;
  }
  double similarities[4][kFewModalities];  // of which the first n_modalities are used
  for (int m = 0; m < n_modalities; ++m) {
    for (auto& of_pair : similarities) of_pair[m] = 0;
    if (!counts(pairs[0].query, m, pairs[0].id)) continue;
    const auto &items = items_.matrix(m), &queries = args_.queries[static_cast<std::size_t>(m)];
    const float *query_rows[4], *item_rows[4];
    for (int i = 0; i < 4; ++i) {
      query_rows[i] = queries.row(pairs[i].query);
      item_rows[i] = items.row(pairs[i].id);
    }
    double dots[4];
    kernels.canonical_dots(query_rows, item_rows, items.cols, dots);
    for (int i = 0; i < 4; ++i) similarities[i][m] = similarity(pairs[i].query, m, pairs[i].id, dots[i]);
  }
  for (int i = 0; i < 4; ++i) scores[i] = fused(pairs[i].query, pairs[i].id, similarities[i], nullptr);
}

float Queries::combine(std::int64_t q, int group, const float* similarities, std::int64_t stride) const {
  const auto& present = items_.groups()[static_cast<std::size_t>(group)].present;
  float value = 0;
  bool first = true;
  for (int m = 0; m < items_.n_modalities(); ++m) {
    if (weights(q)[m] == 0 || !(present[static_cast<std::size_t>(m)] || args_.missing == Missing::kZero)) continue;
    const float term = present[static_cast<std::size_t>(m)] ? similarities[m * stride] : 0.0F;
    if (first) {
      value = term;
    } else if (args_.fusion == Fusion::kProduct) {
      value *= term;
    } else {
      value = args_.fusion == Fusion::kMax ? std::max(value, term) : std::min(value, term);
    }
    first = false;
  }
  return value;
}

void Queries::weighted(std::int64_t q, int m, float* out) const {
  const auto& matrix = args_.queries[static_cast<std::size_t>(m)];
  for (std::int64_t j = 0; j < matrix.cols; ++j) out[j] = static_cast<float>(matrix.row(q)[j] * scale(q, m));
}

double Queries::weighted_product(std::int64_t q, int m, const double* x) const {
  const auto& matrix = args_.queries[static_cast<std::size_t>(m)];
  double sum = 0;
  for (std::int64_t j = 0; j < matrix.cols; ++j) sum += matrix.row(q)[j] * x[j];
  return sum * scale(q, m);
}

void Queries::pack(const kernels::KernelTable& kernels, std::int64_t first, std::int64_t last, float* panel) const {
  std::vector<float> row;
  for (int m = 0; m < items_.n_modalities(); ++m) {
    const std::int64_t dim = items_.matrix(m).cols;
    row.resize(static_cast<std::size_t>(dim));
    for (int r = 0; r < kernels.mr; ++r) {
      const bool used = first + r < last && screenable(first + r);
      if (used) weighted(first + r, m, row.data());
      for (std::int64_t k = 0; k < dim; ++k) panel[k * kernels.mr + r] = used ? row[static_cast<std::size_t>(k)] : 0.0F;
    }
    panel += dim * kernels.mr;
  }
}

}  // namespace recfuse
