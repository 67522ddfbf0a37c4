"""What a device can do: the rates that floors are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from measuring import Clock

READ_L2 = r"""
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


def copy_rate(clock: Clock, n: int) -> float:
    """Return the bytes that a copy within the device reads and writes, in TB/s."""
    source = torch.randn(n, device=clock.device)
    target = torch.empty_like(source)
    return 2e-9 * source.nbytes / clock.time(lambda _: target.copy_(source))["median"]


def matmul_rate(clock: Clock, dtype: torch.dtype, n: int, *, tf32: bool = False) -> float:
    """Return the TFLOP/s of a large product of random matrices."""
    a, b = (torch.randn(n, n, device=clock.device).to(dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        return 2e-9 * n**3 / clock.time(lambda _: a @ b)["median"]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def int8_rate(clock: Clock, n: int) -> float:
    """Return the TOP/s of a product of matrices of int8."""
    a, b = (torch.randint(-127, 128, (n, n), device=clock.device).to(torch.int8) for _ in range(2))
    by_columns = b.t()
    return 2e-9 * n**3 / clock.time(lambda _: torch._int_mm(a, by_columns))["median"]


def l2_rate(clock: Clock) -> float:
    """Return the TB/s of reading, again and again, what fits into the second-level cache."""
    import cupy

    n_bytes, repeats, blocks = 16 << 20, 64, 132 * 8
    data = cupy.arange(n_bytes // 4, dtype=cupy.uint32) * cupy.uint32(2_654_435_761)
    out = cupy.zeros(1, cupy.uint32)
    kernel = cupy.RawKernel(READ_L2, "read_l2")
    n = cupy.uint32(n_bytes // 16)
    stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)

    def run(_: int) -> None:
        with stream:
            kernel((blocks,), (512,), (data, n, cupy.int32(repeats), out))

    return 1e-9 * n_bytes * repeats / clock.time(run)["median"]


def ceilings(clock: Clock) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield the name of every rate, and what measures it."""
    big = clock.device == "cuda"
    n, side = (1 << 29, 8192) if big else (1 << 12, 64)
    yield "copy_tb_s", lambda: copy_rate(clock, n)
    for name in ("float16", "bfloat16", "float32"):
        dtype = getattr(torch, name)
        yield f"matmul_{name}_tflop_s", lambda dtype=dtype: matmul_rate(clock, dtype, side)
    yield "matmul_tf32_tflop_s", lambda: matmul_rate(clock, torch.float32, side, tf32=True)
    yield "matmul_int8_top_s", lambda: int8_rate(clock, side)
    yield "l2_tb_s", lambda: l2_rate(clock)
