#include "ops/pair_screen.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "isa/dispatch.hpp"
#include "ops/rounded_items.hpp"

namespace recfuse {
namespace {

constexpr std::int64_t kSample = 1024;  // items that tell typical norms
// Relative: an item's element is multiplied in float32 by a factor that is one, half an ulp (2^-24) each.
constexpr double kItemRounding = 0x1p-22;
// Relative to |v| |y|: the score is rounded once, the value too, the ends of its interval once; the rest is for
// float64.
constexpr double kRounding = 0x1p-20;
constexpr double kHalfUnit = 0.5 + 0x1p-20;  // what rounding an element to an integer loses; products may underflow
constexpr double kLeastBound = 0x1p-110;     // where float32 has no digits left

std::int64_t row_stride(const FusedItems& items) {
  return (items.total_dim() + kernels::kInt16Step - 1) / kernels::kInt16Step * kernels::kInt16Step;
}

}  // namespace

std::vector<double> typical_norms(const FusedItems& items) {
  std::vector<double> norms(static_cast<std::size_t>(items.n_modalities()), 0.0);
  const std::int64_t step = std::max<std::int64_t>(1, items.n_items() / kSample);
  for (std::size_t m = 0; m < norms.size(); ++m) {
    double n = 0;
    for (std::int64_t i = 0; i < items.n_items(); i += step) {
      const auto id = static_cast<std::int32_t>(i);
      const double norm = items.irregular(id) ? 0.0 : items.screen_norm(id, static_cast<int>(m));
      norms[m] += norm;
      n += norm > 0 ? 1 : 0;
    }
    norms[m] = n > 0 ? norms[m] / n : 1.0;
  }
  return norms;
}

PairItems::PairItems(const FusedItems& items)
    : items_(items), stride_(row_stride(items)), typical_norms_(typical_norms(items)) {}

void PairItems::choose(std::int32_t first, std::int32_t width) {
  first_ = first;
  const std::size_t n_modalities = typical_norms_.size();
  const auto n = static_cast<std::size_t>(std::min<std::int64_t>(width, items_.n_items() - first));
  rows_.resize(n * static_cast<std::size_t>(stride_));
  units_.resize(n);
  norms_.resize(n * n_modalities);
  states_.assign(n, kUnused);
  for (std::size_t i = 0; i < n; ++i) {
    double squares = 0;
    for (std::size_t m = 0; m < n_modalities; ++m) {
      const double norm =
          items_.screen_norm(first + static_cast<std::int32_t>(i), static_cast<int>(m)) / typical_norms_[m];
      norms_[i * n_modalities + m] = norm;
      squares += norm * norm;
    }
    units_[i] = std::sqrt(squares) / kMaxNorm;
  }
}

void PairItems::round(std::span<const Queries::Pair> pairs) {
  for (const Queries::Pair& pair : pairs) {
    State& state = states_[slot(pair.id)];
    if (state == kUnused) state = kWanted;
  }
  for (std::size_t i = 0; i < states_.size(); ++i) {  // in the order of memory
    if (states_[i] != kWanted) continue;
    round_row(first_ + static_cast<std::int32_t>(i), &rows_[i * static_cast<std::size_t>(stride_)]);
    states_[i] = kRounded;
  }
}

void PairItems::round_row(std::int32_t id, std::int16_t* out) const {
  const auto& kernels = kernel_table();
  for (std::size_t m = 0; m < typical_norms_.size(); ++m) {
    const auto& matrix = items_.matrix(static_cast<int>(m));
    if (items_.screen_norm(id, static_cast<int>(m)) > 0) {
      const double scale = items_.cosine() ? items_.inverse_norm_of(id, static_cast<int>(m)) : 1.0;
      const double in_units = scale / (typical_norms_[m] * unit(id));
      kernels.scale_to_int16(matrix.row(id), static_cast<float>(in_units), matrix.cols, out);
    } else {
      std::fill_n(out, matrix.cols, std::int16_t{0});
    }
    out += matrix.cols;
  }
}

bool PairScreen::fits(const Queries& queries) {
  return kernel_table().dots_int16 != nullptr && is_linear(queries.args().fusion) &&
         RoundedItems::fits(queries.items());
}

PairScreen::PairScreen(const Queries& queries, std::int64_t first, std::int64_t last)
    : queries_(queries),
      items_(queries.items()),
      first_(first),
      stride_(row_stride(items_)),
      typical_norms_(typical_norms(items_)),
      query_rows_(static_cast<std::size_t>((last - first) * stride_)),
      query_units_(static_cast<std::size_t>(last - first)),
      per_norm_(static_cast<std::size_t>(last - first) * n_modalities()),
      per_unit_(static_cast<std::size_t>(last - first)) {
  for (std::int64_t q = first; q < last; ++q) {
    if (queries.scanned(q)) round_query(q);
  }
}

void PairScreen::round_query(std::int64_t q) {
  const auto& kernels = kernel_table();
  double squares = 0;
  for (std::size_t m = 0; m < n_modalities(); ++m) {
    const double norm = queries_.screen_norm(q, static_cast<int>(m)) * typical_norms_[m];
    squares += norm * norm;
  }
  const auto at = static_cast<std::size_t>(q - first_);
  const double unit = std::sqrt(squares) / kMaxNorm;
  query_units_[at] = unit;
  std::int16_t* out = &query_rows_[at * static_cast<std::size_t>(stride_)];
  for (std::size_t m = 0; m < n_modalities(); ++m) {
    const auto& matrix = queries_.args().queries[m];
    const double norm = queries_.screen_norm(q, static_cast<int>(m)) * typical_norms_[m];
    const double scale = queries_.scale(q, static_cast<int>(m)) * typical_norms_[m];
    const double lost =
        std::sqrt(kernels.round_to_int16(matrix.row(q), scale, nullptr, unit, matrix.cols, out).lost) * kUp;
    per_norm_[query_slot(q) + m] = (lost * (1 + kItemRounding) + norm * (kItemRounding + kRounding)) * kUp;
    per_unit_[at] += (lost + norm) * std::sqrt(static_cast<double>(matrix.cols)) * kHalfUnit * kUp;
    out += matrix.cols;
  }
}

double PairScreen::bound(const Queries::Pair& pair, const PairItems& items) const {
  const double* const per_norm = &per_norm_[query_slot(pair.query)];
  const double* const norms = items.norms(pair.id);
  double sum = per_unit_[static_cast<std::size_t>(pair.query - first_)] * items.unit(pair.id);
  for (std::size_t m = 0; m < n_modalities(); ++m) sum += per_norm[m] * norms[m];
  return queries_.factor(pair.query, items_.group_of(pair.id)) * sum * kUp + kLeastBound;
}

void PairScreen::measure(std::span<const Queries::Pair> pairs, std::span<const double> bounds, PairItems& items,
                         std::span<Interval> intervals) const {
  const auto& kernels = kernel_table();
  items.round(pairs);
  for (std::size_t i = 0; i < pairs.size(); i += kernels::kDots) {
    std::array<const std::int16_t*, kernels::kDots> rows, item_rows;
    std::array<std::int32_t, kernels::kDots> dots;
    const std::size_t n = std::min<std::size_t>(kernels::kDots, pairs.size() - i);
    for (std::size_t j = 0; j < rows.size(); ++j) {
      const Queries::Pair& pair = pairs[i + std::min(j, n - 1)];
      rows[j] = query_row(pair.query);
      item_rows[j] = items.row(pair.id);
    }
    kernels.dots_int16(rows.data(), item_rows.data(), stride_, dots.data());
    for (std::size_t j = 0; j < n; ++j) {
      const Queries::Pair& pair = pairs[i + j];
      const double units = query_units_[static_cast<std::size_t>(pair.query - first_)] * items.unit(pair.id);
      const double value = queries_.factor(pair.query, items_.group_of(pair.id)) * units * dots[j];
      const double within = bounds[i + j] * (1 + 0x1p-20) + std::abs(value) * 0x1p-22;
      intervals[i + j] = {static_cast<float>(value), static_cast<float>(within)};
    }
  }
}

}  // namespace recfuse
