"""The part of `FusedIndex` that ranks given pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_csr, as_modalities, as_num_threads, check_name, csr_parts
from recfuse._modalities import as_compiled, first_of, weight_rows
from recfuse._named import named

__all__ = ["IndexRanks", "PairRanks"]


class PairRanks(NamedTuple):
    """Where pairs of a query and an item stand among all items, from 1.

    0 throughout for an item that is excluded or not ranked (a NaN, or no modality).

    Attributes
    ----------
    rank : ndarray of shape (n_pairs,), int32
        By score, then by id: the place in a list of `topk` that is long enough.
    first, last : ndarray of shape (n_pairs,), int32
        1 and the number of items that score more; the same and the others that score the same. So
        ties are ``last - first + 1`` items, the pair's own among them.
    n_ranked : ndarray of shape (n_queries,), int32
        How many items are ranked: neither excluded nor NaN.
    """

    rank: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    n_ranked: NDArray[np.int32]


class IndexRanks:
    """The part of `FusedIndex` that ranks given pairs."""

    _items: dict[str, NDArray[np.float32]]
    _device: str
    _handle: Any
    _num_threads: int

    @named("rank_pairs")
    def rank_pairs(
        self,
        queries: Mapping[str, ArrayLike],
        pairs: Any,
        *,
        weights: Mapping[str, ArrayLike] | None = None,
        fusion: str = "sum",
        missing: str = "renormalise",
        exclude: Any = None,
    ) -> PairRanks:
        """Rank given pairs of query and item among all items, exactly, without making any list.

        What is better than each is counted, so there is neither a score matrix nor a limit k: the
        ranks are those that `topk` would give with k as large as the catalogue. Nearly all items
        are judged by a screen with a proven bound; those too close to a pair for it by the very
        scores of `topk`.

        Parameters
        ----------
        queries, weights, fusion, missing
            As in `topk`. Arrays on a GPU stay there.
        pairs : sparse of shape (n_queries, n_items)
            The stored entries are ranked, row by row in ascending order of the item.
        exclude : sparse of shape (n_queries, n_items), optional
            Stored entries, whatever their value, are left out, as in `topk`.

        Returns
        -------
        PairRanks
            Equal for every device, number of threads and instruction set.

        Raises
        ------
        TypeError, ValueError
            As `topk`.

        Examples
        --------
        >>> import numpy as np, recfuse, scipy.sparse as sp
        >>> index = recfuse.FusedIndex({"x": [[3.0], [1.0], [2.0], [1.0]]}, metric="dot")
        >>> index.rank_pairs({"x": [[1.0]]}, sp.csr_array([[0, 0, 1, 1]])).rank.tolist()
        [2, 4]
        """
        check_name(fusion, "fusion")
        check_name(missing, "missing")
        names = list(self._items)
        matrices = as_modalities(queries, "queries", names, self._device)
        result = self._handle.rank_pairs(
            as_compiled(matrices.values()),
            weight_rows(weights, names, len(first_of(matrices))),
            csr_parts(as_csr(pairs, "pairs")),
            fusion=fusion,
            missing=missing,
            exclude=None if exclude is None else csr_parts(as_csr(exclude, "exclude")),
            num_threads=as_num_threads(self._num_threads),
        )
        return PairRanks(*result)
