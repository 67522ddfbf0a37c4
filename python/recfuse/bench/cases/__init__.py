"""The workloads of every op, small and full."""

from __future__ import annotations

import importlib
from typing import Any

from recfuse.bench.case import Case

__all__ = ["OPS", "cases_of", "rebuild"]

OPS = ("topk", "fuse_topk", "cosine_knn", "als")


def cases_of(op: str, *, quick: bool, device: str = "cpu") -> list[Case]:
    """Return the workloads of `op`; the quick ones take seconds.

    On a GPU, the same and larger ones.

    Raises
    ------
    ValueError
        If there is no such op.
    """
    module = _module(op)
    cases: list[Case] = module.QUICK if quick else module.FULL
    return cases if quick or device == "cpu" else [*cases, *module.FULL_ON_DEVICE]


def rebuild(op: str, sizes: dict[str, Any]) -> Case:
    """Return the case of `op` whose `Case.sizes` are given."""
    case: Case = _module(op).CASE(**sizes)
    return case


def _module(op: str) -> Any:
    if op not in OPS:
        raise ValueError(f"bench: op must be one of {', '.join(OPS)}; got {op!r}")
    return importlib.import_module(f"recfuse.bench.cases.{op}")
