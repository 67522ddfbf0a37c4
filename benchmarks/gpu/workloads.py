"""What is raced on a GPU for the pages: workloads, targets, and the sizes from which it pays."""

from __future__ import annotations

from dataclasses import dataclass

from recfuse.bench import Case
from recfuse.bench.cases.als import Als
from recfuse.bench.cases.cosine_knn import CosineKnn
from recfuse.bench.cases.fuse_topk import FuseTopk
from recfuse.bench.cases.topk import Topk

_RATINGS = {"n_users": 138_000, "n_items": 27_000, "nnz": 20_000_000}
_TOY_RATINGS = {"n_users": 90, "n_items": 60, "nnz": 900}

ONE = Topk(n_queries=1, n_items=1_000_000, dim=128, k=10)
IMPLICIT = Als(**_RATINGS, factors=128)
EXPLICIT = Als(**_RATINGS, factors=64, objective="explicit")
SIMILAR = CosineKnn(**_RATINGS, k=100)

CASES: dict[str, list[Case]] = {
    "topk": [ONE, Topk(n_queries=10_240, n_items=1_000_000, dim=128, k=100)],
    "fuse_topk": [FuseTopk(n_queries=10_240, n_items=1_000_000, dims=(64, 384, 512), k=100)],
    "als": [IMPLICIT, EXPLICIT],
    "cosine_knn": [SIMILAR],
}
TOYS: dict[str, list[Case]] = {
    "topk": [Topk(n_queries=n, n_items=2_000, dim=12, k=20) for n in (1, 70)],
    "fuse_topk": [FuseTopk(n_queries=70, n_items=2_000, dims=(6, 12), k=20)],
    "als": [Als(**_TOY_RATINGS, factors=8, objective=x) for x in ("implicit", "explicit")],
    "cosine_knn": [CosineKnn(**_TOY_RATINGS, k=10)],
}


def key(case: Case) -> str:
    """Return what evidence calls a case."""
    return f"{case.op} {case.name}"


@dataclass(frozen=True)
class Target:
    """A bound on the time of a contender, or on how much longer than ours a peer takes."""

    case: Case
    contender: str
    most_ms: float = 0.0
    least_ratio: float = 0.0


TARGETS = (
    Target(IMPLICIT, "recfuse, exact", most_ms=25),
    Target(IMPLICIT, "recfuse, cg", most_ms=9),
    Target(EXPLICIT, "recfuse", most_ms=8),
    Target(SIMILAR, "recfuse, all from the host", most_ms=25),
    Target(IMPLICIT, "implicit's GPU module", least_ratio=10),
    Target(SIMILAR, "CuPy", least_ratio=20),
)


def ratings_of(nnz: int) -> dict[str, int]:
    """Return sizes of the shape of the workloads above: as dense, five users an item."""
    n_items = round((nnz / 5 / 0.0054) ** 0.5)
    return {"n_users": 5 * n_items, "n_items": n_items, "nnz": nnz}


_ITEMS = (1_000, 10_000, 100_000, 1_000_000)
_ENTRIES = (10_000, 100_000, 1_000_000)

# Growing, from where a CPU is soonest done.
SERIES: dict[str, list[Case]] = {
    "one query, 128 dimensions": [Topk(n_queries=1, n_items=n, dim=128, k=10) for n in _ITEMS],
    "1,024 queries, 128 dimensions": [
        Topk(n_queries=1024, n_items=n, dim=128, k=10) for n in _ITEMS
    ],
    "1,024 queries, three modalities": [
        FuseTopk(n_queries=1024, n_items=n, dims=(64, 384, 512), k=100) for n in _ITEMS[:3]
    ],
    "ALS, an iteration, 64 factors": [Als(**ratings_of(n), factors=64) for n in _ENTRIES],
    "similar items, k = 100": [CosineKnn(**ratings_of(n), k=100) for n in _ENTRIES],
}
TOY_SERIES = {name: cases[:1] for name, cases in SERIES.items()}
