"""Searches over items that lie on a GPU, beside PyTorch and CuPy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from measuring import Clock

import recfuse

SETS = 3  # of queries, in turn
SAMPLE = 8  # queries whose lists are held against the CPU's and float64
BLOCK_BYTES = 8 << 30  # of a peer's scores
MOST_SECONDS = 6.0  # of a call that is measured
Host = dict[str, np.ndarray[Any, Any]]
There = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """Sizes of a search. Of several modalities, every query has its own weights."""

    n_queries: int
    n_items: int
    dims: tuple[int, ...]
    k: int

    @property
    def name(self) -> str:
        dims = "+".join(map(str, self.dims))
        return f"q{self.n_queries} n{self.n_items} d{dims} k{self.k}"

    @property
    def weighted(self) -> bool:
        return len(self.dims) > 1


class Workload:
    """Random items and sets of queries on the device; what goes over the bus lies on the host, too.

    Everything is drawn there: a minute less than on the host.
    """

    def __init__(self, case: Case, device: str) -> None:
        generator = torch.Generator(device).manual_seed(case.n_items)

        def draw(n: int) -> There:
            return {
                f"m{i}": torch.randn(n, d, device=device, generator=generator)
                for i, d in enumerate(case.dims)
            }

        self.case = case
        self.items = draw(case.n_items)
        self.queries = [draw(case.n_queries) for _ in range(SETS)]
        self.host_queries: list[Host] = [
            {name: x.cpu().numpy() for name, x in queries.items()} for queries in self.queries
        ]
        rng = np.random.default_rng(0)
        self.weights: list[Host] = [
            {name: rng.uniform(0.1, 1, case.n_queries) for name in self.items} for _ in range(SETS)
        ]

    def options(self, i: int) -> dict[str, Any]:
        """Return k and weights of set `i`."""
        weights = {"weights": self.weights[i % SETS]} if self.case.weighted else {}
        return {"k": self.case.k, **weights}

    def side_by_side(self, i: int, weights: list[There]) -> torch.Tensor:
        """Return the queries of set `i` times their weights, as one matrix."""
        queries = self.queries[i % SETS]
        if not self.case.weighted:
            return queries["m0"]
        return torch.cat([x * weights[i % SETS][name] for name, x in queries.items()], dim=1)


def weights_there(work: Workload, dtype: torch.dtype = torch.float32) -> list[There]:
    """Return the weights as columns on the device."""
    device = work.items["m0"].device
    return [
        {m: torch.from_numpy(w).to(device, dtype)[:, None] for m, w in weights.items()}
        for weights in work.weights
    ]


def check(work: Workload, found: tuple[Any, ...]) -> None:
    """Hold the first lists against the CPU, byte by byte, and against PyTorch in float64."""
    ids, scores = (np.asarray(x)[:SAMPLE] for x in found)
    exact = 0
    for name, x in work.items.items():
        q = work.queries[0][name][:SAMPLE].double()
        if work.case.weighted:
            q = q * weights_there(work, torch.float64)[0][name][:SAMPLE]
        # In parts: in float64 the items would take twice their memory at once.
        exact = exact + torch.cat([q @ part.double().T for part in x.split(1 << 17)], dim=1)
    best = torch.topk(exact, work.case.k).values.cpu().numpy()
    if not np.allclose(scores, best, rtol=1e-6, atol=1e-6):
        raise AssertionError("lists differ from those of float64")
    host = {name: x.cpu().numpy() for name, x in work.items.items()}
    options = work.options(0)
    if "weights" in options:
        options["weights"] = {m: w[:SAMPLE] for m, w in options["weights"].items()}
    sample = {name: x[:SAMPLE] for name, x in work.host_queries[0].items()}
    theirs = recfuse.FusedIndex(host, metric="dot", device="cpu").topk(sample, **options)
    for ours, expected in zip((ids, scores), theirs, strict=True):
        if ours.tobytes() != expected.tobytes():
            raise AssertionError("lists are not the CPU's bytes")


def measure_recfuse(work: Workload, clock: Clock) -> dict[str, Any]:
    """Check and time the search of an index of items on the device."""
    index = recfuse.FusedIndex(work.items, metric="dot", device="cuda")

    def resident(i: int) -> Any:
        return index.topk(work.queries[i % SETS], **work.options(i))

    def with_copies(i: int) -> Any:
        return index.topk(work.host_queries[i % SETS], **work.options(i))

    check(work, resident(0))
    return {
        "checked": True,
        "plan": index.plan(),
        "resident_ms": clock.time(resident),
        "with_copies_ms": clock.time(with_copies),
        **portable_kernels(index, resident, clock),
        "kernels": clock.kernels(resident),
    }


def portable_kernels(
    index: recfuse.FusedIndex, search: Callable[[int], Any], clock: Clock
) -> dict[str, Any]:
    """Time the kernels that run everywhere, where the device has others."""
    if "sm_90a" not in index.plan()["reason"]:
        return {}
    os.environ["RECFUSE_CUDA_ISA"] = "sm_80"
    try:
        return {"portable_ms": clock.time(search)}
    finally:
        del os.environ["RECFUSE_CUDA_ISA"]


def by_torch(work: Workload, name: str) -> Callable[[int], None]:
    """Return a search by matmul and topk, in blocks of queries whose scores fit."""
    dtype = torch.float16 if name == "float16" else torch.float32
    items = torch.cat(list(work.items.values()), dim=1).to(dtype)
    weights = weights_there(work)
    block = max(1, BLOCK_BYTES // (items.element_size() * len(items)))

    def run(i: int) -> None:
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        for part in work.side_by_side(i, weights).to(dtype).split(block):
            torch.topk(part @ items.T, work.case.k)

    return run


def by_cupy(work: Workload) -> Callable[[int], None]:
    """Return a search by matmul, argpartition and a sort of the k, in blocks of queries."""
    import cupy

    items = cupy.asarray(torch.cat(list(work.items.values()), dim=1))
    weights, k = weights_there(work), work.case.k
    block = max(1, BLOCK_BYTES // (4 * 8 * len(items)))  # indices are int64, and sorted with copies

    def run(i: int) -> None:
        queries = cupy.asarray(work.side_by_side(i, weights))
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            begun = time.perf_counter()
            for begin in range(0, len(queries), block):
                cupy.cuda.get_current_stream().synchronize()
                if time.perf_counter() - begun > MOST_SECONDS:
                    raise TimeoutError(f"{begin} of {len(queries)} queries in {MOST_SECONDS} s")
                scores = queries[begin : begin + block] @ items.T
                best = cupy.argpartition(scores, len(items) - k, axis=1)[:, -k:]
                found = cupy.take_along_axis(scores, best, axis=1)
                cupy.take_along_axis(best, cupy.argsort(-found, axis=1), axis=1)

    return run


def peers(work: Workload) -> dict[str, Callable[[], Callable[[int], None]]]:
    """Return what makes the search of every peer."""
    found: dict[str, Callable[[], Callable[[int], None]]] = {
        f"PyTorch {name}": lambda name=name: by_torch(work, name)
        for name in ("float32", "tf32", "float16")
    }
    return {**found, "CuPy float32": lambda: by_cupy(work)}


def measure_peer(make: Callable[[], Callable[[int], None]], clock: Clock) -> dict[str, Any]:
    """Time a peer; what fails, is missing or takes too long is said in its place."""
    try:
        run = make()
        first = clock._once(run, 0)
        if first > 1e3 * MOST_SECONDS:
            return {"once_ms": first}
        return {"ms": clock.time(run)}
    except ImportError as error:
        return {"missing": str(error)}
    except Exception as error:  # a peer that fails is no reason to lose the others
        return {"error": f"{type(error).__name__}: {error}"[:300]}
