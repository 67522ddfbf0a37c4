"""Times on a GPU: CUDA events around a call, the second-level cache flushed before each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

ROUNDS = 11
FEW_ROUNDS = 3  # of calls that take long
LONG = 1.0  # seconds
FLUSHED = 256 << 20  # bytes: several times the largest cache


class Clock:
    """Times calls on a device; on a CPU, which stands in for one, by the wall clock."""

    def __init__(self, device: str) -> None:
        self.device = device
        size = FLUSHED if device == "cuda" else 1
        self._flush = torch.zeros(size, dtype=torch.int8, device=device)

    def time(self, run: Callable[[int], Any]) -> dict[str, Any]:
        """Return median and quartiles of `run(i)` in milliseconds.

        The first two calls are not counted: they load modules and take memory.
        """
        run(0)
        begun = time.perf_counter()
        run(1)
        self._wait()
        rounds = FEW_ROUNDS if time.perf_counter() - begun > LONG else ROUNDS
        times = sorted(self._once(run, i) for i in range(rounds))
        low, _, high = statistics.quantiles(times, n=4)
        return {"median": statistics.median(times), "quartiles": [low, high], "rounds": rounds}

    def _once(self, run: Callable[[int], Any], i: int) -> float:
        self._flush.add_(1)
        self._wait()
        if self.device != "cuda":
            begun = time.perf_counter()
            run(i)
            return 1e3 * (time.perf_counter() - begun)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run(i)
        # Calls of recfuse return when their stream is done, those of PyTorch before: both count.
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def kernels(self, run: Callable[[int], Any]) -> dict[str, Any]:
        """Return calls and microseconds of every kernel and copy of one call.

        Or why there is no telling: a profiler that does not work here must not cost the times.
        """
        if self.device != "cuda":
            return {}
        try:
            return self._profiled(run)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:300]}

    def _profiled(self, run: Callable[[int], Any]) -> dict[str, Any]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            run(0)
            self._wait()
        found = {}
        for event in profile.key_averages():
            spent = getattr(event, "self_device_time_total", None)
            spent = getattr(event, "self_cuda_time_total", 0) if spent is None else spent
            if spent:
                found[event.key[:120]] = {"calls": event.count, "us": round(float(spent), 1)}
        return dict(sorted(found.items(), key=lambda item: -item[1]["us"])[:16])
