"""What retrieval and fusion have in common: both want the k largest of queries times items."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import recfuse
from recfuse.bench.case import Answer, Case, Contender, Cost, Inputs, Ready, Referee, ids_and_scores
from recfuse.bench.exclusions import excluded_hits, excluded_items
from recfuse.bench.peers.dense import dense_peers
from recfuse.bench.peers.on_device import dense_peers_on_device

if TYPE_CHECKING:
    from recfuse.bench.device import DeviceInputs

__all__ = ["DenseCase", "Float32"]

Float32 = NDArray[np.float32]

_TOLERANCE = 1e-5  # float32 sums of some hundred products err by less, relative to |q| |x|
_SAMPLE = 16  # queries whose scores are all computed in float64


@dataclass(frozen=True, kw_only=True)
class DenseCase(Case):
    """Peers multiply `query_matrix` by `item_matrix`; recfuse never makes the product."""

    metric: ClassVar[str]

    n_queries: int
    n_items: int
    k: int
    n_excluded: int = 0

    @property
    @abstractmethod
    def width(self) -> int:
        """Columns of the two matrices."""

    @abstractmethod
    def item_matrix(self, inputs: Inputs) -> Float32:
        """Return what a peer keeps of the items, shape (n_items, width); made once."""

    @abstractmethod
    def query_matrix(self, inputs: Inputs) -> Float32:
        """Return what a peer makes of the queries in every call, shape (n_queries, width)."""

    @abstractmethod
    def modalities(self, arrays: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """Return 'queries' or 'items' as recfuse takes them, of the host or of a device."""

    @abstractmethod
    def options(self, inputs: Inputs) -> dict[str, Any]:
        """Return what else `FusedIndex.topk` gets: weights, exclusions."""

    def peers(self) -> list[Contender]:
        """Return the dense peers."""
        return dense_peers(self.n_queries)

    def ours_on_device(self) -> list[Contender]:
        """Search items that lie there, for queries that do and that do not; then neither do."""
        portable = {"RECFUSE_CUDA_ISA": "sm_80"}
        index = "FusedIndex of the items on the device"
        return [
            _ours("recfuse", _resident, f"{index}; queries there", "index.topk, lists stay there"),
            _ours("recfuse, host queries", _from_host, index, "queries and lists over the bus"),
            _ours("recfuse, all from the host", _from_nothing, "nothing", "index and search"),
            _ours("recfuse, portable kernels", _resident, index, "as recfuse", portable),
        ]

    def peers_on_device(self) -> list[Contender]:
        """Return the dense peers there."""
        return dense_peers_on_device()

    def cost(self, inputs: Inputs) -> Cost:
        """Multiply every query by every item; read both and write the lists once."""
        queries_and_lists = (4.0 * self.width + 8.0 * self.k) * self.n_queries
        return Cost(
            flops=2.0 * self.n_queries * self.n_items * self.width,
            bytes=4.0 * self.n_items * self.width + queries_and_lists,
            int8_bytes=1.0 * self.n_items * self.width + queries_and_lists,
        )

    def referee(self, inputs: Inputs) -> Referee:
        """Return one that knows the exact scores."""
        return _DenseReferee(self, inputs)


def _ours(
    name: str, prepare: Any, once: str, per_call: str, environment: dict[str, str] | None = None
) -> Contender:
    return Contender(name, "recfuse", "recfuse", prepare, once, per_call, environment or {})


def _resident(case: DenseCase, inputs: DeviceInputs, num_threads: int) -> Ready:
    return _searching(case, inputs, inputs.there)


def _from_host(case: DenseCase, inputs: DeviceInputs, num_threads: int) -> Ready:
    return _searching(case, inputs, inputs)


def _searching(case: DenseCase, inputs: DeviceInputs, of_queries: Mapping[str, Any]) -> Ready:
    items = case.modalities(inputs.there, "items")
    index = recfuse.FusedIndex(items, metric=case.metric, device="cuda")
    queries, options = case.modalities(of_queries, "queries"), case.options(inputs)
    return Ready(lambda: index.topk(queries, case.k, **options), ids_and_scores)


def _from_nothing(case: DenseCase, inputs: DeviceInputs, num_threads: int) -> Ready:
    items, queries = case.modalities(inputs, "items"), case.modalities(inputs, "queries")
    options = case.options(inputs)

    def search() -> Any:
        index = recfuse.FusedIndex(items, metric=case.metric, device="cuda")
        return index.topk(queries, case.k, **options)

    return Ready(search, ids_and_scores)


class _DenseReferee(Referee):
    def __init__(self, case: DenseCase, inputs: Inputs) -> None:
        self.case = case
        self.items, self.queries = case.item_matrix(inputs), case.query_matrix(inputs)
        self.excluded = excluded_items(inputs) if case.n_excluded else None
        longest = np.sqrt(np.einsum("ij,ij->i", self.items, self.items).max())
        norms = np.linalg.norm(self.queries.astype(np.float64), axis=1)
        self.tolerances = _TOLERANCE * norms * longest

    def verify(self, answer: Answer) -> str | None:
        rows = np.unique(np.linspace(0, self.case.n_queries - 1, _SAMPLE).astype(np.intp))
        queries, k = self.queries[rows].astype(np.float64), self.case.k
        blocks = np.array_split(self.items, 64)
        scores = np.concatenate([queries @ x.astype(np.float64).T for x in blocks], axis=1)
        if self.excluded is not None:
            left_out = self.excluded[rows].tocoo()
            scores[left_out.row, left_out.col] = -np.inf
        best = -np.sort(np.partition(-scores, k - 1, axis=1)[:, :k], axis=1)
        gap = np.abs(answer["scores"][rows] - best).max(axis=1)
        wrong = np.flatnonzero(~(gap <= self.tolerances[rows]))
        if len(wrong):
            return f"the scores of query {rows[wrong[0]]} are off by {gap[wrong[0]]:.3g}"
        exact = {"ids": np.argsort(-scores, axis=1, kind="stable")[:, :k]}
        return self._differs(rows, exact["ids"], answer["ids"][rows]) or self._malformed(answer)

    def compare(self, ours: Answer, theirs: Answer) -> str | None:
        rows = np.arange(self.case.n_queries)
        return self._malformed(theirs) or self._differs(rows, ours["ids"], theirs["ids"])

    def _malformed(self, answer: Answer) -> str | None:
        ids, shape = answer["ids"], (self.case.n_queries, self.case.k)
        if ids.shape != shape:
            return f"ids have shape {ids.shape} instead of {shape}"
        if ids.min() < 0 or ids.max() >= self.case.n_items:
            return "an id is out of range"
        ordered = np.sort(ids, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            return "an id comes twice in a list"
        if self.excluded is not None and excluded_hits(self.excluded, ids).any():
            return "an excluded item comes back"
        return None

    def _differs(
        self, rows: NDArray[np.intp], expected: NDArray[np.integer], got: NDArray[np.integer]
    ) -> str | None:
        """Ids must be equal, except where their exact scores tie within float32 rounding."""
        at, place = np.nonzero(got != expected)
        query, theirs, ours = rows[at], got[at, place], expected[at, place]
        gap = np.abs(self._scores(query, theirs) - self._scores(query, ours))
        wrong = np.flatnonzero(~(gap <= self.tolerances[query]))
        if not len(wrong):
            return None
        i = wrong[0]
        return (
            f"query {query[i]} has item {theirs[i]} at place {place[i]} instead of {ours[i]}; "
            f"their scores differ by {gap[i]:.3g}"
        )

    def _scores(self, rows: NDArray[np.intp], ids: NDArray[np.integer]) -> NDArray[np.float64]:
        scores = np.empty(len(rows))
        for start in range(0, len(rows), 1 << 14):
            part = slice(start, start + (1 << 14))
            queries = self.queries[rows[part]].astype(np.float64)
            scores[part] = np.einsum("ij,ij->i", queries, self.items[ids[part]])
        return scores
