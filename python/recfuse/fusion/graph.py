"""Composition of fusion rules: small graphs over named modalities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Union

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_csr, as_float, as_ids, as_int, check_ids, is_sparse
from recfuse._merge import best_of
from recfuse._named import named
from recfuse.fusion._patterns import intersection, without
from recfuse.index import FusedIndex

__all__ = ["Average", "FusionNode", "Max", "Min", "Product", "Sum"]

Float64 = NDArray[np.float64]
Child = Union[str, "FusionNode"]

_PAIRS = 1 << 20  # scored at a time where a graph is no single search


class FusionNode:
    """Base of the fusion rules: modalities or other rules by name, each with a weight.

    Parameters
    ----------
    children : mapping of (str or FusionNode) to float, or iterable of them
        Names of modalities and other nodes, with finite weights, not all 0; in an iterable every
        weight is 1. A weight of 0 leaves a child out.

    Raises
    ------
    TypeError, ValueError
        If a child or a weight is wrong, or there is none.
    """

    rule = ""  # as `recfuse.FusedIndex.topk` calls it

    def __init__(self, children: Mapping[Child, float] | Iterable[Child]) -> None:
        op = type(self).__name__
        if isinstance(children, (str, FusionNode)):
            raise TypeError(f"{op}: children must be a mapping or a list; got {children!r}")
        pairs = children.items() if isinstance(children, Mapping) else ((c, 1.0) for c in children)
        self.children: list[tuple[Child, float]] = []
        for child, weight in pairs:
            if not isinstance(child, (str, FusionNode)):
                raise TypeError(f"{op}: children must be names or fusion nodes; got {child!r}")
            value = as_float(weight, f"{op}: weight of {child!r}")
            if not np.isfinite(value):
                raise ValueError(f"{op}: weight of {child!r} must be finite; got {value}")
            self.children.append((child, value))
        if not any(weight for _, weight in self.children):
            raise ValueError(f"{op}: children must have a weight other than 0; got {self}")

    def __repr__(self) -> str:
        inside = ", ".join(f"{child!r}: {weight:g}" for child, weight in self.children)
        return f"{type(self).__name__}({{{inside}}})"

    @property
    def modalities(self) -> list[str]:
        """Names that the graph uses, each once, in the order of their first use."""
        names: dict[str, None] = {}
        for child, _ in self.children:
            names.update(dict.fromkeys([child] if isinstance(child, str) else child.modalities))
        return list(names)

    def __call__(self, scores: Mapping[str, ArrayLike], *, missing: str = "renormalise") -> Float64:
        """Fuse scores that are there already: matrices, lists or single numbers.

        Parameters
        ----------
        scores : mapping modality -> array-like
            All of one shape; NaN where a modality is missing.
        missing : {'renormalise', 'zero'}, default='renormalise'
            As in `recfuse.FusedIndex.topk`, in every node: one whose children are all missing is
            missing itself.

        Returns
        -------
        ndarray, float64
            Of the same shape; NaN where nothing is there.

        Raises
        ------
        ValueError
            If a modality is missing altogether or shapes differ.
        """
        if missing not in ("renormalise", "zero"):
            raise ValueError(f"missing must be 'renormalise' or 'zero'; got {missing!r}")
        absent = [name for name in self.modalities if name not in scores]
        if absent:
            raise ValueError(f"scores must have the modalities {self.modalities}; got no {absent}")
        arrays = {name: np.asarray(scores[name], np.float64) for name in self.modalities}
        first, like = next(iter(arrays.items()))
        for name, array in arrays.items():
            if array.shape != like.shape:
                raise ValueError(
                    f"scores[{name!r}] must have shape {like.shape} like scores[{first!r}]; "
                    f"got {array.shape}"
                )
        if missing == "zero":
            arrays = {name: np.nan_to_num(array, nan=0.0) for name, array in arrays.items()}
        return self._evaluate(arrays)

    def _evaluate(self, arrays: Mapping[str, Float64]) -> Float64:
        used = [(child, weight) for child, weight in self.children if weight != 0]
        values = np.stack(
            [arrays[c] if isinstance(c, str) else c._evaluate(arrays) for c, _ in used]
        )
        weights = np.array([w for _, w in used]).reshape(-1, *[1] * (values.ndim - 1))
        here = ~np.isnan(values)
        fused = self._fuse(values, weights, here)
        return np.where(here.any(axis=0), fused, np.nan)

    def _fuse(self, values: Float64, weights: Float64, here: NDArray[np.bool_]) -> Float64:
        raise NotImplementedError

    def linear_weights(self) -> dict[str, float] | None:
        """Return the weights of one sum that equals the graph, or None where it is not linear.

        They are equal where every item has every modality, and with ``missing='zero'``.
        """
        return None

    @named("topk")
    def topk(
        self,
        index: FusedIndex,
        queries: Mapping[str, ArrayLike],
        k: int,
        *,
        missing: str = "renormalise",
        normalise: str | None = None,
        exclude: Any = None,
        allow: Any = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Find the k best items of every query by the graph, exactly.

        A linear graph becomes one search with flattened weights, and so does a rule over
        modalities alone. Any other graph scores every admitted pair of query and item, a block at
        a time.

        Parameters
        ----------
        index : FusedIndex
        queries : mapping modality -> array-like of shape (n_queries, dim_m)
        k : int
        missing : {'renormalise', 'zero'}, default='renormalise'
        normalise : {'zscore', 'minmax'} or None, default=None
            For graphs that become one search.
        exclude : sparse of shape (n_queries, n_items), optional
        allow : array-like of int, or sparse of shape (n_queries, n_items), optional

        Returns
        -------
        ids : ndarray of shape (n_queries, k), int32
            Score descending, then id ascending; -1 for padding.
        scores : ndarray of shape (n_queries, k), float32
            -inf for padding.

        Raises
        ------
        TypeError, ValueError, IndexError
            As `recfuse.FusedIndex.topk`; ValueError for `normalise` with any other graph, and if
            the graph names a modality that the index does not have.
        """
        unknown = [name for name in self.modalities if name not in index.modalities]
        if unknown:
            raise ValueError(f"index must have the modalities {self.modalities}; got no {unknown}")
        filters = {"exclude": exclude, "allow": allow}
        options = {"missing": missing, "normalise": normalise, **filters}
        flat = all(isinstance(child, str) for child, _ in self.children)
        linear = self.linear_weights()
        complete = index._present is None or bool(index._present.all())
        if flat and len(self.modalities) == len(self.children):
            weights = {str(child): weight for child, weight in self.children}
            rule = self.rule
        elif linear is not None and any(linear.values()) and (complete or missing == "zero"):
            weights, rule = linear, "sum"
        else:
            if normalise is not None:
                raise ValueError(
                    f"normalise must be None for a graph that is no single search; got {self}"
                )
            return self._scan(index, queries, k, missing, exclude, allow)
        weights = {name: weights.get(name, 0.0) for name in index.modalities}
        ids, scores = index.topk(queries, k, weights=weights, fusion=rule, **options)
        return ids, scores

    def _scan(
        self,
        index: FusedIndex,
        queries: Mapping[str, ArrayLike],
        k: int,
        missing: str,
        exclude: Any,
        allow: Any,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Score every admitted pair, a block of queries at a time."""
        if as_int(k, "k") < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        matrices = {name: np.asarray(queries[name]) for name in index.modalities}
        n_queries, n_items = len(next(iter(matrices.values()))), index.n_items
        excluded = None if exclude is None else as_csr(exclude, "exclude")
        if is_sparse(allow):
            allow = as_csr(allow, "allow")
        elif allow is not None:
            allow = check_ids(as_ids(allow, "allow"), n_items, "allow")
        ids = np.full((n_queries, k), -1, np.int32)
        scores = np.full((n_queries, k), -np.inf, np.float32)
        step, width = max(1, _PAIRS // max(n_items, 1)), min(k, n_items)
        for start in range(0, n_queries, step):
            rows = slice(start, start + step)
            block = {name: matrix[rows] for name, matrix in matrices.items()}
            table = self._table(index, block, missing)
            pairs = as_csr(_everything(table.shape), "pairs")
            if allow is not None:
                pairs = intersection(pairs, allow[rows] if is_sparse(allow) else allow)
            pairs = without(pairs, None if excluded is None else excluded[rows])
            admitted = pairs.toarray() > 0
            table = np.where(admitted & ~np.isnan(table), table, -np.inf).astype(np.float32)
            every = np.broadcast_to(np.arange(n_items, dtype=np.int32), table.shape)
            listed = np.where(np.isneginf(table), np.int32(-1), every)
            ids[rows, :width], scores[rows, :width] = best_of(listed, table, k=width)
        return ids, scores

    def _table(self, index: FusedIndex, queries: Mapping[str, ArrayLike], missing: str) -> Float64:
        """Return the fused scores of a few queries and all items."""
        n_queries = len(next(iter(map(np.asarray, queries.values()))))
        shape = (n_queries, index.n_items)
        _, parts = index.score_pairs(queries, _everything(shape), missing="zero")
        table = parts.reshape(*shape, len(index.modalities))
        similarities, broken = {}, np.zeros(shape, bool)
        for column, name in enumerate(index.modalities):
            present = index._presence_of(name)
            here = np.ones(index.n_items, bool) if present is None else present
            similarities[name] = np.where(here, table[:, :, column], np.nan)
            if name in self.modalities:
                broken |= here & np.isnan(table[:, :, column])
        # A vector with a NaN is not a missing one: its item never ranks, as in every search.
        return np.where(broken, np.nan, self(similarities, missing=missing))


class _Linear(FusionNode):
    """What is a weighted sum of its children where all of them are there."""

    def linear_weights(self) -> dict[str, float] | None:
        total = dict.fromkeys(self.modalities, 0.0)
        scale = self._scale()
        for child, weight in self.children:
            inner = {child: 1.0} if isinstance(child, str) else child.linear_weights()
            if inner is None:
                return None
            for name, value in inner.items():
                total[name] += weight * scale * value
        return total

    def _scale(self) -> float:
        return 1.0


class Sum(_Linear):
    r"""The weighted sum of the children :math:`P` that are there.

    It is :math:`\sum_P w_c s_c \cdot \sum |w_c| / \sum_P |w_c|`, as in `recfuse.FusedIndex.topk`.

    Examples
    --------
    >>> import numpy as np, recfuse
    >>> from recfuse.fusion import Average, Sum
    >>> fused = Sum({"cnn": 0.7, Average({"text": 1, "audio": 3}): 0.3})
    >>> {name: round(w, 3) for name, w in fused.linear_weights().items()}
    {'cnn': 0.7, 'text': 0.075, 'audio': 0.225}
    >>> float(fused({"cnn": 1.0, "text": 2.0, "audio": 0.0}))
    0.85
    >>> items = {name: np.eye(3) for name in ("cnn", "text", "audio")}
    >>> index = recfuse.FusedIndex(items, metric="dot")
    >>> ids, scores = fused.topk(index, {name: [[1, 2, 3]] for name in items}, k=2)
    >>> ids.tolist(), scores.tolist()
    ([[2, 1]], [[3.0, 2.0]])
    """

    rule = "sum"

    def _fuse(self, values: Float64, weights: Float64, here: NDArray[np.bool_]) -> Float64:
        total = np.where(here, weights * values, 0).sum(axis=0)
        present = (np.abs(weights) * here).sum(axis=0)
        every = np.abs(weights).sum()
        # Where nothing is missing the factor is left out: it would round.
        factor = np.divide(every, present, out=np.ones_like(present), where=present > 0)
        return np.asarray(np.where(here.all(axis=0), total, total * factor))


class Average(_Linear):
    r"""The weighted average :math:`\sum_P w_c s_c / \sum_P |w_c|` of the children there."""

    rule = "average"

    def _scale(self) -> float:
        return 1 / sum(abs(weight) for _, weight in self.children)

    def _fuse(self, values: Float64, weights: Float64, here: NDArray[np.bool_]) -> Float64:
        total = np.where(here, weights * values, 0).sum(axis=0)
        present = (np.abs(weights) * here).sum(axis=0)
        average: Float64 = np.divide(total, present, out=np.zeros_like(total), where=present > 0)
        return average


class Product(FusionNode):
    r"""The product :math:`\prod_P w_c s_c` of the children there."""

    rule = "product"

    def _fuse(self, values: Float64, weights: Float64, here: NDArray[np.bool_]) -> Float64:
        return np.asarray(np.where(here, weights * values, 1).prod(axis=0))


class Max(FusionNode):
    r"""The largest :math:`w_c s_c` of the children there."""

    rule = "max"

    def _fuse(self, values: Float64, weights: Float64, here: NDArray[np.bool_]) -> Float64:
        return np.asarray(np.where(here, weights * values, -np.inf).max(axis=0))


class Min(FusionNode):
    r"""The smallest :math:`w_c s_c` of the children there."""

    rule = "min"

    def _fuse(self, values: Float64, weights: Float64, here: NDArray[np.bool_]) -> Float64:
        return np.asarray(np.where(here, weights * values, np.inf).min(axis=0))


def _everything(shape: tuple[int, int]) -> sp.csr_array:
    return sp.csr_array(np.ones(shape, np.float32))
