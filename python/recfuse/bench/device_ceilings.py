"""What a GPU can do, measured: the rates that floors are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from recfuse.bench.clock import Clock
from recfuse.bench.roofline import Ceilings

__all__ = ["as_ceilings", "measure_rates", "rates"]

_READ_L2 = r"""
extern "C" __global__ void read_l2(const uint4* data, unsigned n, int repeats, unsigned* out) {
  unsigned sum = 0;
  for (int r = 0; r < repeats; ++r) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
      uint4 v;  // past the first cache
      asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(data + i));
      sum += v.x ^ v.y ^ v.z ^ v.w;
    }
  }
  if (sum == 12345u) *out = sum;
}
"""
_ADD_SHARED = r"""
extern "C" __global__ void add_shared(int repeats, unsigned* out) {
  __shared__ unsigned sums[8192];
  for (unsigned i = threadIdx.x; i < 8192; i += blockDim.x) sums[i] = 0;
  __syncthreads();
  unsigned x = blockIdx.x * blockDim.x + threadIdx.x;
  for (int r = 0; r < repeats; ++r) {
    x = x * 1664525u + 1013904223u;
    atomicAdd(&sums[x >> 19], 1u);
  }
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = sums[0];
}
"""


def as_ceilings(measured: Mapping[str, float], cache_bytes: int) -> Ceilings:
    """Return the rates by which floors are told; of products, that of float16.

    What was not measured sets no floor, or is taken as memory's.
    """
    memory = 1e12 * measured["copy_tb_s"]
    return Ceilings(
        flops=1e12 * measured["matmul_float16_tflop_s"],
        memory=memory,
        cache=1e12 * measured["l2_tb_s"] if "l2_tb_s" in measured else memory,
        updates=1e9 * measured.get("shared_atomics_g_s", 0.0),
        cache_bytes=cache_bytes,
        in_float16=True,
    )


def measure_rates(
    clock: Clock, missing: Callable[[str, Exception], None] | None = None
) -> dict[str, float]:
    """Measure all of them; `missing` gets what cannot be, and why."""
    found = {}
    for name, measure in rates(clock):
        try:
            found[name] = measure()
        except Exception as error:  # CuPy may be missing, or a product of a type
            if missing is not None:
                missing(name, error)
    return found


def rates(clock: Clock) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield the name of every rate, and what measures it."""
    import torch

    big = clock.device == "cuda"
    n, side = (1 << 29, 8192) if big else (1 << 12, 64)
    yield "copy_tb_s", lambda: _copy_rate(clock, n)
    for name in ("float16", "bfloat16", "float32"):
        dtype = getattr(torch, name)
        yield f"matmul_{name}_tflop_s", functools.partial(_matmul_rate, clock, dtype, side)
    yield "matmul_tf32_tflop_s", lambda: _matmul_rate(clock, torch.float32, side, tf32=True)
    yield "matmul_int8_top_s", lambda: _int8_rate(clock, side)
    yield "l2_tb_s", lambda: _l2_rate(clock)
    yield "shared_atomics_g_s", lambda: _shared_rate(clock)


def _copy_rate(clock: Clock, n: int) -> float:
    """Return the bytes that a copy within the device reads and writes, in TB/s."""
    import torch

    source = torch.randn(n, device=clock.device)
    target = torch.empty_like(source)
    return float(2e-9 * source.nbytes / clock.time(lambda _: target.copy_(source))["median"])


def _matmul_rate(clock: Clock, dtype: Any, n: int, *, tf32: bool = False) -> float:
    """Return the TFLOP/s of a large product of random matrices."""
    import torch

    a, b = (torch.randn(n, n, device=clock.device).to(dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        return float(2e-9 * n**3 / clock.time(lambda _: a @ b)["median"])
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def _int8_rate(clock: Clock, n: int) -> float:
    """Return the TOP/s of a product of matrices of int8."""
    import torch

    a, b = (torch.randint(-127, 128, (n, n), device=clock.device).to(torch.int8) for _ in range(2))
    by_columns = b.t()
    return float(2e-9 * n**3 / clock.time(lambda _: torch._int_mm(a, by_columns))["median"])


def _l2_rate(clock: Clock) -> float:
    """Return the TB/s of reading, again and again, what fits into the second-level cache."""
    import cupy

    n_bytes, repeats, blocks = 16 << 20, 64, 132 * 8
    data = cupy.arange(n_bytes // 4, dtype=cupy.uint32) * cupy.uint32(2_654_435_761)
    out = cupy.zeros(1, cupy.uint32)
    arguments = (data, cupy.uint32(n_bytes // 16), cupy.int32(repeats), out)
    run = _launches(_READ_L2, "read_l2", blocks, 512, arguments)
    return float(1e-9 * n_bytes * repeats / clock.time(run)["median"])


def _shared_rate(clock: Clock) -> float:
    """Return the G additions/s of atomics on whole numbers scattered over shared memory."""
    import cupy

    blocks, threads, repeats = 132 * 4, 512, 4096
    arguments = (cupy.int32(repeats), cupy.zeros(blocks, cupy.uint32))
    run = _launches(_ADD_SHARED, "add_shared", blocks, threads, arguments)
    return float(1e-6 * blocks * threads * repeats / clock.time(run)["median"])


def _launches(
    source: str, name: str, blocks: int, threads: int, arguments: tuple[Any, ...]
) -> Callable[[int], None]:
    """Return what launches a kernel on the stream whose events tell the time."""
    import cupy
    import torch

    kernel = cupy.RawKernel(source, name)
    stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)

    def run(_: int) -> None:
        with stream:
            kernel((blocks,), (threads,), arguments)

    return run
