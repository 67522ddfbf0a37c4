"""Times on a GPU: CUDA events around a call, the second-level cache flushed before each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["Clock"]

_ROUNDS = 11
_FEW_ROUNDS = 3  # of calls that take long
_LONG = 1.0  # seconds
_FLUSHED = 256 << 20  # bytes: several times the largest cache
_SHOWN_KERNELS = 16


class Clock:
    """Times calls on a device; on a CPU, which stands in for one, by the wall clock.

    Parameters
    ----------
    device : {'cuda', 'cpu'}
        Of PyTorch, whose events are used.
    """

    def __init__(self, device: str) -> None:
        import torch

        self._torch: Any = torch
        self.device = device
        size = _FLUSHED if device == "cuda" else 1
        self._flush = torch.zeros(size, dtype=torch.int8, device=device)

    def once(self, call: Callable[[], Any]) -> tuple[float, Any]:
        """Return the seconds of one call with cold caches, and its result."""
        self._flush.add_(1)
        self.wait()
        if self.device != "cuda":
            begun = time.perf_counter()
            result = call()
            return time.perf_counter() - begun, result
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        result = call()
        self.wait()  # for all streams: not every library works on that of the events
        end.record()
        end.synchronize()
        return 1e-3 * float(start.elapsed_time(end)), result

    def time(self, run: Callable[[int], Any]) -> dict[str, Any]:
        """Return median and quartiles of `run(i)` in milliseconds.

        The first two calls are not counted: they load modules and take memory.
        """
        run(0)
        begun = time.perf_counter()
        run(1)
        self.wait()
        rounds = _FEW_ROUNDS if time.perf_counter() - begun > _LONG else _ROUNDS
        times = sorted(1e3 * self.once(partial(run, i))[0] for i in range(rounds))
        low, _, high = statistics.quantiles(times, n=4)
        return {"median": statistics.median(times), "quartiles": [low, high], "rounds": rounds}

    def wait(self) -> None:
        """Return when everything that was sent to the device is done."""
        if self.device == "cuda":
            self._torch.cuda.synchronize()

    def free_bytes(self) -> int | None:
        """Return what the device has free; None where a CPU stands in for it."""
        if self.device != "cuda":
            return None
        self._torch.cuda.empty_cache()
        return int(self._torch.cuda.mem_get_info()[0])

    def kernels(self, call: Callable[[], Any]) -> dict[str, Any]:
        """Return calls and microseconds of every kernel and copy of one call.

        Or why there is no telling: a profiler that does not work here must not cost the times.
        """
        if self.device != "cuda":
            return {}
        try:
            return self._profiled(call)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:300]}

    def _profiled(self, call: Callable[[], Any]) -> dict[str, Any]:
        profiler = self._torch.profiler
        with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as profile:
            call()
            self.wait()
        found = {}
        for event in profile.key_averages():
            spent = getattr(event, "self_device_time_total", None)
            spent = getattr(event, "self_cuda_time_total", 0) if spent is None else spent
            if spent:
                found[event.key[:120]] = {"calls": event.count, "us": round(float(spent), 1)}
        return dict(sorted(found.items(), key=lambda item: -item[1]["us"])[:_SHOWN_KERNELS])
