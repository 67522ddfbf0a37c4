"""Seconds and bytes of a model, measured in this process."""

from __future__ import annotations

import ctypes
import gc
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["COLUMNS", "Costs", "Measured", "Timed", "latencies"]

COLUMNS = ("fit s", "fit MiB", "users/s", "p50 ms", "p99 ms", "MiB")  # of `Costs.cells`


@dataclass(frozen=True)
class Costs:
    """What a model takes, in this process, on this machine, beside whatever else runs on it.

    Peaks are the largest resident memory of the process beyond what it had before, by Linux; None
    on other systems. What is in memory already, such as the training data, is not in them. A model
    that runs later finds libraries loaded: for numbers to publish, use a process per model.

    Attributes
    ----------
    fit_seconds, fit_peak_bytes : float, int or None
        None where the model was not fitted here.
    recommend_seconds : float
        Of all calls of `recommend`, in batches.
    recommend_peak_bytes : int or None
        Of the whole evaluation.
    users_per_second : float
        In batches.
    latency_p50, latency_p99 : float
        Median and 99th percentile in seconds of requests for one user, one after the other.
    """

    fit_seconds: float | None
    fit_peak_bytes: int | None
    recommend_seconds: float
    recommend_peak_bytes: int | None
    users_per_second: float
    latency_p50: float
    latency_p99: float

    def cells(self) -> list[str]:
        """Return the cells of a table under `COLUMNS`."""
        return [
            "-" if self.fit_seconds is None else f"{self.fit_seconds:.3g}",
            _mebibytes(self.fit_peak_bytes),
            f"{self.users_per_second:,.0f}",
            f"{1e3 * self.latency_p50:.3g}",
            f"{1e3 * self.latency_p99:.3g}",
            _mebibytes(self.recommend_peak_bytes),
        ]


class Measured:
    """With this around a block, `seconds` and `peak_bytes` say what the block took."""

    seconds = 0.0
    peak_bytes: int | None = None

    def __enter__(self) -> Measured:
        gc.collect()
        _return_freed_memory()
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
            self._before: int | None = _status("VmRSS")
        except OSError:  # no Linux, or a sandbox
            self._before = None
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        if self._before is not None:
            self.peak_bytes = max(0, _status("VmHWM") - self._before)


class Timed:
    """A model that counts its users and the seconds of its answers."""

    def __init__(self, recommend: Any) -> None:
        self._recommend = recommend
        self.seconds = 0.0
        self.n_users = 0

    def recommend(self, user_ids: NDArray[Any], k: int, *, user_items: Any) -> Any:
        start = time.perf_counter()
        answer = self._recommend(user_ids, k, user_items=user_items)
        self.seconds += time.perf_counter() - start
        self.n_users += len(user_ids)
        return answer


def latencies(
    recommend: Any, users: NDArray[Any], k: int, history: sp.csr_array | None
) -> tuple[float, float]:
    """Return median and 99th percentile of the seconds of a request for one user."""
    seconds = np.empty(len(users))
    for n, user in enumerate([users[0], *users]):  # the first one warms caches up
        one = np.array([user])
        rows = None if history is None else history[one]
        start = time.perf_counter()
        recommend(one, k, user_items=rows)
        seconds[max(0, n - 1)] = time.perf_counter() - start
    p50, p99 = np.percentile(seconds, [50, 99])
    return float(p50), float(p99)


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {name}")
    return 1024 * int(found[1])


def _return_freed_memory() -> None:
    # Else a block that uses again what others have freed seems to need nothing.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _mebibytes(n_bytes: int | None) -> str:
    return "-" if n_bytes is None else f"{n_bytes / 2**20:.1f}"
