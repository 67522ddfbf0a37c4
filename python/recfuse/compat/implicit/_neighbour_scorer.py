"""What scores one history by the neighbours of its items."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import CsrParts, as_csr, csr_parts
from recfuse.backend import resolve_op
from recfuse.compat.implicit._search import larger_ids_first, length_of

__all__ = ["Lists", "NearestNeighboursScorer"]

Lists = tuple[NDArray[Any], NDArray[Any]]


class NearestNeighboursScorer:
    """What scores histories by a similarity; models have one as `scorer`."""

    def __init__(self, similarity: Any, num_threads: int = 0) -> None:
        self.num_threads = num_threads
        self.neighbours = as_csr(similarity, "similarity")
        self._compiled = resolve_op("NeighbourScorer", "cpu")(csr_parts(self.neighbours))

    def recommend(
        self,
        user_indptr: Any,
        user_indices: Any,
        user_data: Any,
        K: int = 10,
        remove_own_likes: bool = True,
    ) -> Lists:
        """Return ids and scores of the K best items for the first row of a history in parts."""
        parts = (user_data, user_indices, np.asarray(user_indptr)[:2])
        shape = (1, self.neighbours.shape[0])
        history = csr_parts(as_csr(sp.csr_array(parts, shape=shape), "user_items"))
        own = history.indices if remove_own_likes else None
        return self.one(history, length_of(K, "K"), own)

    def one(self, history: CsrParts, k: int, excluded: NDArray[np.int32] | None) -> Lists:
        """Return the list of one history, with a look at the neighbours of its items alone."""
        most = max(1, self.neighbours.shape[1])
        ids, scores = self._compiled.topk(history, min(k, most), exclude=excluded)
        if ids[0, -1] < 0:
            found = np.count_nonzero(ids >= 0)
            ids, scores = ids[:, :found], scores[:, :found]
        ids, scores = larger_ids_first(ids, scores)
        return ids[0], scores[0].astype(np.float64)
