"""`cosine_knn`: the k most similar other items of every item, generated interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.bench.case import Answer, Case, Contender, Cost, Inputs, Ready, Referee
from recfuse.bench.interactions import draw_interactions, user_items
from recfuse.bench.peers.on_device import sparse_peers_on_device
from recfuse.bench.peers.sparse import neighbour_lists, sparse_peers
from recfuse.ops import cosine_knn

__all__ = ["CASE", "FULL", "QUICK", "CosineKnn"]

_EXACT = 1e-6  # our cosines are summed in float64
_SAMPLE = 64  # items whose cosines are all computed in float64


@dataclass(frozen=True, kw_only=True)
class CosineKnn(Case):
    """Cosines between the items of `nnz` interactions."""

    op = "cosine_knn"

    n_users: int
    n_items: int
    nnz: int
    k: int

    @property
    def name(self) -> str:
        """Sizes in one line."""
        return f"{self.n_items} items of {self.n_users} users, nnz {self.nnz}, k{self.k}"

    def inputs(self) -> Inputs:
        """Draw the interactions."""
        return draw_interactions(self.n_users, self.n_items, self.nnz, self.seed)

    def ours(self) -> list[Contender]:
        """Return the function, from the matrix of items to the lists."""
        return [
            Contender(
                "recfuse",
                "recfuse",
                "recfuse",
                _cosine_knn,
                "the item-user matrix in CSR",
                "recfuse.cosine_knn",
            )
        ]

    def peers(self) -> list[Contender]:
        """Return the sparse peers."""
        return sparse_peers()

    def ours_on_device(self) -> list[Contender]:
        """Return the same function there, from a matrix of the host to lists of the host."""
        call = "recfuse.cosine_knn, the matrix and the lists over the bus"
        once = "the item-user matrix in CSR, of the host"
        name = "recfuse, all from the host"
        return [Contender(name, "recfuse", "recfuse", _on_device, once, call)]

    def peers_on_device(self) -> list[Contender]:
        """Return the sparse peers there."""
        return sparse_peers_on_device()

    def cost(self, inputs: Inputs) -> Cost:
        """Meet every pair of items of a user once; read the matrix and write the lists once."""
        activity = np.diff(inputs["indptr"]).astype(np.float64)
        return Cost(
            flops=0.0,
            bytes=8.0 * self.nnz + 8.0 * self.n_items * self.k,
            updates=float((activity * (activity - 1)).sum() / 2),
        )

    def referee(self, inputs: Inputs) -> Referee:
        """Return one that knows the exact cosines."""
        return _KnnReferee(self, inputs)


class _KnnReferee(Referee):
    def __init__(self, case: CosineKnn, inputs: Inputs) -> None:
        self.case = case
        items = user_items(inputs).T.tocsr().astype(np.float64)
        # A float32 sum of n terms errs by n / 2**24 at most; a thirtieth of that was seen.
        self.tolerance = max(1e-5, 0.1 * np.diff(items.indptr).max() / 2**24)
        norms = np.sqrt(np.asarray(items.multiply(items).sum(axis=1)).ravel())
        self.units = sp.diags_array(1 / np.maximum(norms, 1e-300)) @ items
        self.rows = np.unique(np.linspace(0, case.n_items - 1, _SAMPLE).astype(np.intp))
        cosines = (self.units[self.rows] @ self.units.T).toarray()
        cosines[np.arange(len(self.rows)), self.rows] = -np.inf
        self.cosines = cosines

    def verify(self, answer: Answer) -> str | None:
        best = -np.sort(-self.cosines, axis=1)[:, : self.case.k]
        # An item that shares no user with another has no entry for it.
        gap = np.abs(answer["cosines"][self.rows] - np.maximum(best, 0.0)).max(axis=1)
        wrong = np.flatnonzero(~(gap <= _EXACT))
        if len(wrong):
            return f"the cosines of item {self.rows[wrong[0]]} are off by {gap[wrong[0]]:.3g}"
        return self._malformed(answer, _EXACT)

    def compare(self, ours: Answer, theirs: Answer) -> str | None:
        fault = self._malformed(theirs, self.tolerance)
        if fault is not None:
            return fault
        gap = np.abs(ours["cosines"] - theirs["cosines"]).max(axis=1)
        wrong = np.flatnonzero(~(gap <= self.tolerance))
        if len(wrong):
            return f"the cosines of item {wrong[0]} differ by {gap[wrong[0]]:.3g}"
        return None

    def _malformed(self, answer: Answer, tolerance: float) -> str | None:
        """Ids must have the cosines that stand beside them; so wrong ids can only be ties."""
        ids, cosines = answer["ids"], answer["cosines"]
        if ids.shape != (self.case.n_items, self.case.k):
            return f"ids have shape {ids.shape}"
        if (ids == np.arange(len(ids))[:, None]).any():
            return "an item is its own neighbour"
        ordered = np.sort(ids, axis=1)
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
            return "an id comes twice in a list"
        found = ids[self.rows]
        exact = np.take_along_axis(self.cosines, np.maximum(found, 0), axis=1)
        gap = np.abs(np.where(found < 0, 0.0, exact) - cosines[self.rows]).max(axis=1)
        wrong = np.flatnonzero(~(gap <= tolerance))
        if len(wrong):
            i = wrong[0]
            return (
                f"the neighbours of item {self.rows[i]} have cosines {gap[i]:.3g} from those given"
            )
        return None


def _cosine_knn(case: CosineKnn, inputs: Inputs, num_threads: int) -> Ready:
    return _searching(case, inputs, num_threads, "cpu")


def _on_device(case: CosineKnn, inputs: Inputs, num_threads: int) -> Ready:
    return _searching(case, inputs, num_threads, "cuda")


def _searching(case: CosineKnn, inputs: Inputs, num_threads: int, device: str) -> Ready:
    items = user_items(inputs).T.tocsr()

    def answer(neighbours: Any) -> dict[str, NDArray[Any]]:
        return neighbour_lists(neighbours, case.k)

    return Ready(lambda: cosine_knn(items, case.k, num_threads=num_threads, device=device), answer)


CASE = CosineKnn
QUICK = [CosineKnn(n_users=8_000, n_items=3_000, nnz=400_000, k=50)]
FULL = [
    CosineKnn(n_users=138_000, n_items=27_000, nnz=20_000_000, k=100),
    CosineKnn(n_users=359_000, n_items=292_000, nnz=17_500_000, k=100),
]
FULL_ON_DEVICE: list[CosineKnn] = []
