// Cholesky A = U'U of the upper triangle, left-looking in panels, and the two triangular solves.

#if defined(__AVX512F__)
constexpr int kPanelRows = 16;
#else
constexpr int kPanelRows = 8;
#endif
// Below this share of its diagonal element, a pivot has lost what float32 can hold: the caller solves in float64.
constexpr float kSmallestPivot = 4e-6F;

constexpr int kPanelRowVectors = kPanelRows < kFloats ? 1 : kPanelRows / kFloats;

/// Factors the diagonal block at a, whose first pivots' original diagonal is in inverse[0 .. kPanelRows), replaced by
/// 1 / U[j][j]. Elements below the diagonal are overwritten too.
inline bool factor_diagonal_block(float* a, std::int64_t stride, float* inverse) {
  Floats row[kPanelRows][kPanelRowVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kPanelRows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kPanelRowVectors; ++v) row[i][v] = load(a + i * stride + v * kFloats);
  }
  bool ok = true;
#pragma GCC unroll 16
  for (int j = 0; j < kPanelRows; ++j) {
    float* out = a + j * stride;
#pragma GCC unroll 8
    for (int v = 0; v < kPanelRowVectors; ++v) store(out + v * kFloats, row[j][v]);
    const float pivot = out[j];
    ok = ok && pivot > kSmallestPivot * inverse[j];
    inverse[j] = 1.0F / __builtin_sqrtf(pivot);
    const Floats scale = broadcast(inverse[j]);
#pragma GCC unroll 8
    for (int v = 0; v < kPanelRowVectors; ++v) {
      row[j][v] = multiply(scale, row[j][v]);
      store(out + v * kFloats, row[j][v]);
    }
#pragma GCC unroll 16
    for (int i = j + 1; i < kPanelRows; ++i) {
      const Floats x = broadcast(out[i]);
#pragma GCC unroll 8
      for (int v = 0; v < kPanelRowVectors; ++v) row[i][v] = multiply_subtract(x, row[j][v], row[i][v]);
    }
  }
  return ok;
}

/// One vector of columns of the panel right of its diagonal block: U_block'^-1 times it.
inline void solve_panel_columns(const float* block, std::int64_t stride, const float* inverse, float* columns) {
  Floats row[kPanelRows];
#pragma GCC unroll 16
  for (int i = 0; i < kPanelRows; ++i) row[i] = load(columns + i * stride);
#pragma GCC unroll 16
  for (int j = 0; j < kPanelRows; ++j) {
    row[j] = multiply(broadcast(inverse[j]), row[j]);
    store(columns + j * stride, row[j]);
#pragma GCC unroll 16
    for (int i = j + 1; i < kPanelRows; ++i) {
      row[i] = multiply_subtract(broadcast(block[j * stride + i]), row[j], row[i]);
    }
  }
}

bool factor_spd(float* a, const RowLayout& layout, float* inverse) {
  const std::int64_t n = layout.width, stride = layout.stride;
  for (std::int64_t j = 0; j < n; ++j) inverse[j] = a[j * stride + j];
  for (std::int64_t p = 0; p < n; p += kPanelRows) {
    if (p > 0) {
      for (std::int64_t r = p; r < p + kPanelRows; r += kTileRows) multiply_row_block<true>(a, layout, p, r, a, a);
    }
    float* block = a + p * stride + p;
    if (!factor_diagonal_block(block, stride, inverse + p)) return false;
    for (std::int64_t c = p + kPanelRows; c < n; c += kFloats) {
      solve_panel_columns(block, stride, inverse + p, a + p * stride + c);
    }
  }
  return true;
}

/// x := U'^-1 x, panel by panel: a small triangle, then its effect on everything below.
inline void solve_forward(const float* a, const RowLayout& layout, const float* inverse, float* x) {
  for (std::int64_t p = 0; p < layout.width; p += kPanelRows) {
    const float* block = a + p * layout.stride;
    float t[kPanelRows];
#pragma GCC unroll 16
    for (int j = 0; j < kPanelRows; ++j) t[j] = x[p + j];
#pragma GCC unroll 16
    for (int j = 0; j < kPanelRows; ++j) {
      t[j] *= inverse[p + j];
#pragma GCC unroll 16
      for (int i = j + 1; i < kPanelRows; ++i) t[i] -= block[j * layout.stride + p + i] * t[j];
    }
#pragma GCC unroll 16
    for (int j = 0; j < kPanelRows; ++j) x[p + j] = t[j];
    for (std::int64_t c = p + kPanelRows; c < layout.width; c += kFloats) {
      Floats rest = load(x + c);
#pragma GCC unroll 16
      for (int j = 0; j < kPanelRows; ++j) {
        rest = multiply_subtract(broadcast(x[p + j]), load(block + j * layout.stride + c), rest);
      }
      store(x + c, rest);
    }
  }
}

inline void solve_backward(const float* a, const RowLayout& layout, const float* inverse, float* x) {
  for (std::int64_t p = layout.width - kPanelRows; p >= 0; p -= kPanelRows) {
    const float* block = a + p * layout.stride;
    float t[kPanelRows];
#pragma GCC unroll 16
    for (int j = 0; j < kPanelRows; ++j) {
      Floats sum = zero();
      for (std::int64_t c = p + kPanelRows; c < layout.width; c += kFloats) {
        sum = multiply_add(load(block + j * layout.stride + c), load(x + c), sum);
      }
      t[j] = x[p + j] - sum_lanes(sum);
    }
#pragma GCC unroll 16
    for (int j = kPanelRows - 1; j >= 0; --j) {
      t[j] *= inverse[p + j];
#pragma GCC unroll 16
      for (int i = 0; i < j; ++i) t[i] -= block[i * layout.stride + p + j] * t[j];
    }
#pragma GCC unroll 16
    for (int j = 0; j < kPanelRows; ++j) x[p + j] = t[j];
  }
}

void solve_factored(const float* a, const RowLayout& layout, const float* inverse, float* x) {
  solve_forward(a, layout, inverse, x);
  solve_backward(a, layout, inverse, x);
}
