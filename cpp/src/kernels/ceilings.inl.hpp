// Loops that do one thing only, as fast as the machine can: what the other kernels are measured against.

constexpr int kChains = 12;  // enough to hide the latency of a multiply-add on two ports; with operands, 15 registers

/// Dependent multiply-adds in kChains registers; returns how many floating-point operations they are.
std::int64_t multiply_add_chains(std::int64_t steps, float* sink) {
  const Floats factor = broadcast(0.75F);
  const Floats term = broadcast(0.25F);
  Floats chains[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) chains[i] = broadcast(static_cast<float>(i));
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) chains[i] = multiply_add(chains[i], factor, term);
  }
  Floats sum = chains[0];
#pragma GCC unroll 16
  for (int i = 1; i < kChains; ++i) sum = add(sum, chains[i]);
  float lanes[kFloats];
  store(lanes, sum);
  *sink = lanes[0];
  return 2 * steps * kChains * kFloats;
}

/// Reads n floats, a multiple of 8 vectors; what it returns keeps the loads from being dropped.
float read_floats(const float* data, std::int64_t n) {
  Floats sums[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) sums[i] = zero();
  for (std::int64_t k = 0; k + 8 * kFloats <= n; k += 8 * kFloats) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) sums[i] = add(sums[i], load(data + k + i * kFloats));
  }
#pragma GCC unroll 8
  for (int i = 1; i < 8; ++i) sums[0] = add(sums[0], sums[i]);
  float lanes[kFloats];
  store(lanes, sums[0]);
  return lanes[0];
}

/// ++counters[at[i]]: the update that a sparse product consists of.
void count_at(const std::int32_t* at, std::int64_t n, std::uint32_t* counters) {
#pragma GCC unroll 8
  for (std::int64_t i = 0; i < n; ++i) ++counters[at[i]];
}
