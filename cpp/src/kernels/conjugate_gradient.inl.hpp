// The products that conjugate gradients need, with the rows of one system gathered beside one another.

constexpr int kProductRows = 4;  // independent sums hide the latency of the additions
constexpr int kProductVectors = 4;

void add_normal_product(const float* rows, const RowLayout& layout, std::int64_t n, const float* x, float* y) {
  std::int64_t j = 0;
  for (; j + kProductRows <= n; j += kProductRows) {
    const float* row = rows + j * layout.stride;
    Floats dot[kProductRows];
#pragma GCC unroll 4
    for (int i = 0; i < kProductRows; ++i) dot[i] = zero();
    for (std::int64_t c = 0; c < layout.width; c += kFloats) {
      const Floats xc = load(x + c);
#pragma GCC unroll 4
      for (int i = 0; i < kProductRows; ++i) dot[i] = multiply_add(load(row + i * layout.stride + c), xc, dot[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kProductRows; ++i) dot[i] = broadcast(sum_lanes(dot[i]));
    for (std::int64_t c = 0; c < layout.width; c += kFloats) {
      Floats yc = load(y + c);
#pragma GCC unroll 4
      for (int i = 0; i < kProductRows; ++i) yc = multiply_add(load(row + i * layout.stride + c), dot[i], yc);
      store(y + c, yc);
    }
  }
  for (; j < n; ++j) {
    const float* row = rows + j * layout.stride;
    Floats dot = zero();
    for (std::int64_t c = 0; c < layout.width; c += kFloats) dot = multiply_add(load(row + c), load(x + c), dot);
    dot = broadcast(sum_lanes(dot));
    for (std::int64_t c = 0; c < layout.width; c += kFloats) {
      store(y + c, multiply_add(load(row + c), dot, load(y + c)));
    }
  }
}

void symmetric_product(const float* a, const RowLayout& layout, const float* x, float* y) {
  // Columns of a symmetric matrix are its rows: no sum across lanes.
  for (std::int64_t c = 0; c < layout.width; c += kProductVectors * kFloats) {
    const std::int64_t left = (layout.width - c) / kFloats;
    const int vectors = left < kProductVectors ? static_cast<int>(left) : kProductVectors;
    Floats sum[kProductVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kProductVectors; ++v) sum[v] = zero();
    if (vectors == kProductVectors) {
      for (std::int64_t r = 0; r < layout.width; ++r) {
        const Floats xr = broadcast(x[r]);
#pragma GCC unroll 4
        for (int v = 0; v < kProductVectors; ++v) {
          sum[v] = multiply_add(xr, load(a + r * layout.stride + c + v * kFloats), sum[v]);
        }
      }
    } else {
      for (int v = 0; v < vectors; ++v) {
        for (std::int64_t r = 0; r < layout.width; ++r) {
          sum[v] = multiply_add(broadcast(x[r]), load(a + r * layout.stride + c + v * kFloats), sum[v]);
        }
      }
    }
    for (int v = 0; v < vectors; ++v) store(y + c + v * kFloats, sum[v]);
  }
}

void add_scaled(float scale, const float* x, std::int64_t n, float* y) {
  const Floats s = broadcast(scale);
  for (std::int64_t c = 0; c < n; c += kFloats) store(y + c, multiply_add(s, load(x + c), load(y + c)));
}
