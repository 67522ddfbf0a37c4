"""The handle of fused retrieval: items that are searched more than once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._available import available_bytes
from recfuse._device_arrays import is_on_gpu, to_gpu
from recfuse._index_changes import IndexChanges
from recfuse._index_ranks import IndexRanks
from recfuse._inputs import (
    as_csr,
    as_filters,
    as_int,
    as_modalities,
    as_num_threads,
    check_choice,
    check_name,
    csr_parts,
)
from recfuse._modalities import (
    as_compiled,
    check_shapes,
    first_of,
    presence_flags,
    weight_rows,
)
from recfuse._named import named
from recfuse._normalised import normalised_topk
from recfuse._rank_fusion import rank_fusion
from recfuse._retrieval import Modality, Retrieval, Vectors
from recfuse.backend import resolve_backend, resolve_op

__all__ = ["FusedIndex"]

Scores = NDArray[np.float32]

_SMALL_BYTES = 256 << 20
_MOST_K = 2**31 - 1
_RULES = ("sum", "average", "product", "max", "min", "rrf")  # C++ knows all but the last
_MISSING = ("renormalise", "zero")


class FusedIndex(IndexChanges, IndexRanks):
    """Items of several modalities, ready for exact fused top-k search.

    Parameters
    ----------
    items : mapping modality -> array-like of shape (n_items, dim_m)
        C-contiguous float32 matrices are used in place (memory-mapped ones too, of any size) and
        must not be changed while the index is in use; anything else is converted, for which it
        must fit into memory. An index that is asked often keeps a rounded copy, a quarter of their
        size, if that is no more than a quarter of the memory available when it is made.
    metric : {'cosine', 'dot'}, default='cosine'
        Similarity ``s_m`` of a modality.
    present : mapping modality -> array-like of bool of shape (n_items,), optional
        Which items have the modality; every item where a modality is not named. The vectors of
        missing ones are ignored.
    device : {'auto', 'cpu', 'cuda'} or GPUs by number, default='auto'
        'cuda' is the first GPU, 'cuda:1' the second. 'cuda:0,1' divides the items among both, in
        ranges of one size; results are those of one, bit for bit. A GPU may be named twice.
    num_threads : int, default=0

    Attributes
    ----------
    modalities : list of str
    dims : dict of str to int
    n_items : int
    device : str

    Notes
    -----
    With ``device='cuda'``, items and queries may be float32 arrays in the memory of the GPU, of any
    library that speaks DLPack or the CUDA array interface (PyTorch, CuPy, JAX, the OrtValue of ONNX
    Runtime). They are used in place; where all queries are there, so are the results: arrays with
    ``__dlpack__`` and ``__cuda_array_interface__`` (``torch.from_dlpack(ids)``). Nobody has to
    synchronise: a search waits, on the GPU, for what the library's stream still has to do, and when
    it returns its results are complete for every stream. `add`, `update`, `remove` and pickling
    copy the items to the host; 'rrf' and `normalise` the queries. With several GPUs arrays may be
    on any of them: the others copy what they need, and results are on the first; items must then
    fit, for blocks of them come from the host alone. On the CPU, arrays of these
    libraries in host memory are used in place, too, and results are NumPy's.

    Examples
    --------
    >>> import numpy as np, recfuse
    >>> index = recfuse.FusedIndex({"text": np.eye(3)}, metric="dot")
    >>> index.add({"text": [[2.0, 0, 0]]})
    >>> ids, scores = index.topk({"text": [[1.0, 0, 0]]}, k=2)
    >>> ids.tolist(), scores.tolist()
    ([[3, 0]], [[2.0, 1.0]])
    """

    @named("fuse_topk")
    def __init__(
        self,
        items: Mapping[str, ArrayLike],
        *,
        metric: str = "cosine",
        present: Mapping[str, ArrayLike] | None = None,
        device: str = "auto",
        num_threads: int = 0,
    ) -> None:
        matrices = as_modalities(items, "items", device=device)
        mask = presence_flags(present, matrices)
        self._build(matrices, mask, metric, device, num_threads)

    def _build(
        self,
        items: dict[str, Scores],
        present: NDArray[np.uint8] | None,
        metric: str,
        device: str,
        num_threads: int,
        op: str = "fuse_topk",
    ) -> None:
        check_name(metric, "metric")
        handle = _compiled(items, present, metric, device, num_threads, op)
        # Only now: a change that is refused leaves the index as it was.
        self._handle, self._items, self._present = handle, items, present
        self._metric, self._device, self._num_threads = metric, device, num_threads
        self._made: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made again from the arrays."""
        return {k: v for k, v in vars(self).items() if k not in ("_handle", "_made")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = ("_items", "_present", "_metric", "_device", "_num_threads")
        self._build(*(state[name] for name in names))

    def _made_once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _alone(self, name: str) -> Any:
        """Return the compiled index of one modality."""
        if len(self._items) == 1:
            return self._handle
        flags = self._presence_of(name)
        mask = None if flags is None else flags[:, None].astype(np.uint8)
        return self._made_once(
            f"{name} alone",
            lambda: _compiled(
                {name: self._items[name]}, mask, self._metric, self._device, self._num_threads
            ),
        )

    def _with_constant(self) -> Any:
        """Return the compiled index with one more modality, which is 1 for every item."""
        ones = np.ones((self.n_items, 1), np.uint8)
        mask = None if self._present is None else np.hstack([self._present, ones])
        items = {**self._items, "": ones.astype(np.float32)}
        return self._made_once(
            "with constant",
            lambda: _compiled(items, mask, self._metric, self._device, self._num_threads),
        )

    def _presence_of(self, name: str) -> NDArray[np.bool_] | None:
        if self._present is None:
            return None
        flags: NDArray[np.bool_] = self._present[:, self.modalities.index(name)] != 0
        return flags

    def _retrieval(self) -> Retrieval:
        """Return the search that this index makes, for files; see `Estimator._retrieval`."""
        matrices = {name: np.asarray(matrix) for name, matrix in self._items.items()}
        return Retrieval(
            tuple(Modality(name, Vectors.of(matrix)) for name, matrix in matrices.items()),
            self._metric,
            weights=(1.0,) * len(matrices),
            present=self._present,
            options={"device": self._device, "num_threads": self._num_threads},
        )

    @property
    def modalities(self) -> list[str]:
        """Names, in the order of ``parts``."""
        return list(self._items)

    @property
    def device(self) -> str:
        """Where searches run: 'cpu', 'cuda', or GPUs by number, as in 'cuda:0,1'."""
        return resolve_backend(self._device).name

    @property
    def dims(self) -> dict[str, int]:
        """How long the vectors of every modality are."""
        return {name: matrix.shape[1] for name, matrix in self._items.items()}

    @property
    def n_items(self) -> int:
        """How many items the index has."""
        return len(next(iter(self._items.values())))

    @named("fuse_topk")
    def topk(
        self,
        queries: Mapping[str, ArrayLike],
        k: int,
        *,
        weights: Mapping[str, ArrayLike] | None = None,
        fusion: str = "sum",
        normalise: str | None = None,
        missing: str = "renormalise",
        exclude: Any = None,
        allow: Any = None,
        contributions: bool = False,
        depth: int = 1000,
        rank_constant: float = 60.0,
    ) -> tuple[Any, ...]:
        r"""Find the k best items of every query.

        With the modalities :math:`P` that an item has and that have a weight other than 0:

        =========== ==================================================================
        'sum'       :math:`\sum_P w_m s_m \cdot \sum |w_m| / \sum_P |w_m|`
        'average'   :math:`\sum_P w_m s_m / \sum_P |w_m|`
        'product'   :math:`\prod_P w_m s_m`
        'max'       :math:`\max_P w_m s_m`
        'min'       :math:`\min_P w_m s_m`
        =========== ==================================================================

        So an item that has every modality scores the plain weighted sum [1]_, and one that lacks
        some is judged by the others at the same scale; one that has none is not ranked. With
        ``missing='zero'`` a missing similarity counts as 0 instead, and the weights stay: every
        item is ranked, those that have none with 0.

        With `normalise` a query puts its similarities of every modality on one scale before they
        are added: :math:`z_m = (s_m - \mu_m) / \sigma_m`, with mean and deviation over all items
        that have the modality ('zscore'), or :math:`z_m = (s_m - \min s_m) / (\max s_m - \min
        s_m)` ('minmax'); 0 where they are all alike (a deviation of up to
        1e-7 of the lengths is rounding). ``fusion='rrf'`` adds up ranks instead [2]_:
        :math:`\sum_m w_m / (c + rank_m)` over the modalities that have the item among their
        `depth` best, the best having rank 1.

        Parameters
        ----------
        queries : mapping modality -> array-like of shape (n_queries, dim_m)
        k : int
        weights : mapping modality -> float or array-like of shape (n_queries,), optional
            Finite, not all 0 for a query; 1 for every modality by default.
        fusion : {'sum', 'average', 'product', 'max', 'min', 'rrf'}, default='sum'
        normalise : {'zscore', 'minmax'} or None, default=None
            For 'sum' and 'average'. Filters do not change the scale. Items or queries that are not
            finite do not count for means, and such a query is not put on a scale. Keeps a second
            compiled index; one search per combination of modalities that items have, and for
            'minmax' one more with twice the queries.
        missing : {'renormalise', 'zero'}, default='renormalise'
        exclude : sparse of shape (n_queries, n_items), optional
        allow : array-like of int, or sparse of shape (n_queries, n_items), optional
        contributions : bool, default=False
        depth : int, default=1000
            Of the lists that 'rrf' merges, those of admitted items: what is not among the `depth`
            best of any modality is not ranked, and `missing` plays no part.
        rank_constant : float, default=60.0
            The c of 'rrf', at least 0.

        Returns
        -------
        ids : ndarray of shape (n_queries, k), int32
            Score descending, then id ascending; -1 for padding.
        scores : ndarray of shape (n_queries, k), float32
            -inf for padding.
        parts : ndarray of shape (n_queries, k, n_modalities), float64
            With `contributions` only: the terms of every score. Those of 'sum', 'average' and
            'rrf' add up, in order, to the score before its rounding to float32 (with `normalise`,
            but for roundings in float64). 0 for padding; NaN for a modality that takes no part in
            'product', 'max', 'min'.

        Raises
        ------
        TypeError, ValueError, IndexError
            As `recfuse.topk`; ValueError if modalities differ or a weight is not finite.

        References
        ----------
        .. [1] E. A. Fox, J. A. Shaw, "Combination of Multiple Searches", TREC-2, 1994.
        .. [2] G. V. Cormack, C. L. A. Clarke, S. Büttcher, "Reciprocal Rank Fusion outperforms
           Condorcet and individual rank learning methods", SIGIR 2009.
        """
        check_choice(fusion, "fusion", _RULES)
        check_choice(missing, "missing", _MISSING)
        matrices = as_modalities(queries, "queries", self.modalities, self._device)
        of_queries = weight_rows(weights, self.modalities, len(first_of(matrices)))
        filters = {"exclude": exclude, "allow": allow}
        if normalise is None and fusion != "rrf":
            return self._search(
                list(matrices.values()),
                of_queries,
                k,
                fusion=fusion,
                missing=missing,
                contributions=contributions,
                **filters,
            )
        check_shapes(matrices, self._items)
        on_gpu = all(is_on_gpu(matrix) for matrix in matrices.values())
        matrices = {name: np.asarray(matrix) for name, matrix in matrices.items()}
        if normalise is None:
            lists = rank_fusion(
                self, matrices, of_queries, k, depth=depth, rank_constant=rank_constant, **filters
            )
        else:
            rule = {"normalise": normalise, "fusion": fusion, "missing": missing}
            lists = normalised_topk(self, matrices, of_queries, k, **rule, **filters)
        lists = lists if contributions else lists[:2]
        return tuple(to_gpu(x, self._device) for x in lists) if on_gpu else lists

    def _search(
        self,
        queries: Sequence[Scores],
        weights: NDArray[np.float64],
        k: int,
        *,
        fusion: str,
        missing: str,
        exclude: Any,
        allow: Any,
        contributions: bool,
        handle: Any = None,
    ) -> tuple[Any, ...]:
        check_name(fusion, "fusion")
        check_name(missing, "missing")
        if isinstance(k, (int, np.integer)) and k > _MOST_K:
            raise ValueError(f"k must be at most 2147483647; got {k}")
        num_threads = as_num_threads(self._num_threads)
        result: tuple[Any, ...] = (handle or self._handle).topk(
            as_compiled(queries),
            weights,
            as_int(k, "k"),
            fusion=fusion,
            missing=missing,
            **as_filters(exclude, allow, num_threads),
            contributions=contributions,
            num_threads=num_threads,
        )
        return result

    @named("score_pairs")
    def score_pairs(
        self,
        queries: Mapping[str, ArrayLike],
        pairs: Any,
        *,
        weights: Mapping[str, ArrayLike] | None = None,
        fusion: str = "sum",
        missing: str = "renormalise",
    ) -> tuple[Scores, NDArray[np.float64]]:
        """Score given pairs of query and item: the very scores of `topk`.

        Parameters
        ----------
        queries, weights, fusion, missing
            As in `topk`.
        pairs : sparse of shape (n_queries, n_items)
            The stored entries are scored, row by row in ascending order of the item.

        Returns
        -------
        scores : ndarray of shape (pairs.nnz,), float32
            NaN for an item that is not ranked.
        parts : ndarray of shape (pairs.nnz, n_modalities), float64
            The terms of every score, as in `topk`.

        Raises
        ------
        TypeError, ValueError
            As `topk`.
        """
        matrices = as_modalities(queries, "queries", self.modalities, self._device)
        n_queries = len(first_of(matrices))
        result = self._handle.score_pairs(
            as_compiled(matrices.values()),
            weight_rows(weights, self.modalities, n_queries),
            csr_parts(as_csr(pairs, "pairs")),
            fusion=fusion,
            missing=missing,
            num_threads=as_num_threads(self._num_threads),
        )
        return result[0], result[1]

    def plan(self) -> dict[str, Any]:
        """Return how the index searches many queries at present, and why; no answer depends on it.

        Returns
        -------
        dict
            ``screen``: 'float32', 'int8' or 'int16', for the fusions 'sum' and 'average' (others
            are always screened in float32); ``reason``; ``item_bytes`` of the matrices in use;
            ``rounded_bytes`` of the int8 copy that is kept for an index that is asked often, with
            the order of its items, and of a second one where single queries come with lists of
            allowed items; ``unit_classes``, how many sizes of items rounding
            distinguishes; ``scored_per_query``, how many items the last trial of int8 scored
            canonically, None before the first. ``order``: 'ids'; 'norms' where the longest
            items come first and a query stops where they are too short for it; 'neighbourhoods'
            where a query first looks at the items that point where it does; ``order_reason``;
            ``skipped_by_norm``, the share of the pairs of query and item that this spared a sample
            of the queries, None where nothing was sampled.

        Examples
        --------
        >>> import numpy as np, recfuse
        >>> recfuse.FusedIndex({"text": np.eye(3)}).plan()["screen"]
        'float32'
        """
        plan: dict[str, Any] = self._handle.plan()
        return plan

    def _rebuild(self, items: dict[str, Scores], present: NDArray[np.uint8] | None) -> None:
        self._build(items, present, self._metric, self._device, self._num_threads)


def most_kept_bytes(item_bytes: int) -> int:
    """Return how large a rounded copy of items an index may keep: a quarter of what is available.

    A copy that is small anyway is kept without looking.
    """
    return item_bytes if item_bytes <= _SMALL_BYTES else available_bytes() // 4


def _compiled(
    items: dict[str, Scores],
    present: NDArray[np.uint8] | None,
    metric: str,
    device: str,
    num_threads: int,
    op: str = "fuse_topk",
) -> Any:
    return resolve_op("FusedIndex", device)(
        as_compiled(items.values()),
        present,
        metric=metric,
        names=list(items) if op == "fuse_topk" else [],
        op=op,
        most_kept_bytes=most_kept_bytes(sum(matrix.nbytes for matrix in items.values())),
        num_threads=as_num_threads(num_threads),
    )
