"""Try the fusions that there are on one's own data: how well each ranks, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_csr, as_float, as_int, as_modalities, as_rng
from recfuse._moments import Moments
from recfuse._named import named
from recfuse._progress import progress
from recfuse.fusion._patterns import pattern_of_lists, union, values_at, without
from recfuse.fusion.early import concatenate
from recfuse.fusion.weights import CachedScores, best_weights
from recfuse.index import FusedIndex

__all__ = ["FusionOption", "FusionSuggestion", "suggest_fusion"]

Float64 = NDArray[np.float64]
Search = Callable[[dict[str, NDArray[np.float32]], Any], NDArray[np.int32]]

_CANDIDATES = 100  # of every modality, on which weights are fitted
_RUNS = 3


@dataclass(frozen=True)
class FusionOption:
    """One way to fuse, tried.

    Attributes
    ----------
    name : str
    quality : float
        The mean metric of the held-out queries.
    behind : tuple of float
        How far the mean is behind the best option's, and the standard error of that, query by
        query.
    milliseconds : float
        Of one query in a batch of all: the median of three runs.
    arguments : dict
        For `recfuse.FusedIndex.topk`; empty for early fusion.
    """

    name: str
    quality: float
    behind: tuple[float, float]
    milliseconds: float
    arguments: dict[str, Any]


@dataclass(frozen=True)
class FusionSuggestion:
    """The options, best first; ``print`` shows the table.

    Attributes
    ----------
    options : list of FusionOption
    suggested : FusionOption
        The fastest of those that are not behind the best by more than one standard error.
    metric : {'ndcg', 'recall'}
    k : int
    n_queries : int
        How many queries were held out.
    """

    options: list[FusionOption]
    suggested: FusionOption
    metric: str
    k: int
    n_queries: int

    def __str__(self) -> str:
        rows = [
            (
                ("* " if option is self.suggested else "  ") + option.name,
                f"{option.quality:.4f}",
                f"{option.behind[0]:.4f} ± {option.behind[1]:.4f}",
                f"{option.milliseconds:.3f}",
            )
            for option in self.options
        ]
        header = ("  fusion", f"{self.metric}@{self.k}", "behind the best", "ms a query")
        widths = [max(len(row[c]) for row in [header, *rows]) for c in range(len(header))]
        lines = []
        for row in [header, *rows]:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
        return "\n".join([*lines, f"{self.n_queries} held-out queries; * is suggested"])


@named("suggest_fusion")
def suggest_fusion(
    queries: Mapping[str, ArrayLike],
    items: Mapping[str, ArrayLike] | FusedIndex,
    relevant: Any,
    *,
    k: int = 10,
    metric: str = "ndcg",
    similarity: str | None = None,
    present: Mapping[str, ArrayLike] | None = None,
    exclude: Any = None,
    held_out: float = 0.5,
    random_state: int | np.random.Generator | None = 0,
    device: str = "auto",
    num_threads: int = 0,
    show_progress: bool = False,
) -> FusionSuggestion:
    """Time and score every fusion on held-out queries.

    Each modality alone; sums of similarities as they are, as z-scores and as parts of the range;
    averages, products, maxima and minima; ranks; concatenated vectors; and z-scores with weights
    that are fitted on the other queries.

    Parameters
    ----------
    queries : mapping modality -> array-like of shape (n_queries, dim_m)
    items : mapping modality -> array-like of shape (n_items, dim_m), or FusedIndex
        An index is tried as it is: with its similarity, presence, device and threads.
    relevant : sparse of shape (n_queries, n_items)
        Entries above 0 are what a query should find.
    k : int, default=10
    metric : {'ndcg', 'recall'}, default='ndcg'
        At `k`, as in `recfuse.evaluation`.
    similarity : {'cosine', 'dot'}, optional
        Of vectors; 'cosine' by default, as `FusedIndex` has it. Factors want 'dot'.
    present : mapping modality -> array-like of bool of shape (n_items,), optional
        Of vectors.
    exclude : sparse of shape (n_queries, n_items), optional
        Left out of every list: what the users know already. It is not relevant.
    held_out : float, default=0.5
        The part of the queries on which options are compared; the others teach weights.
    random_state : int, Generator or None, default=0
    device : {'auto', 'cpu', 'cuda'}, default='auto'
    num_threads : int, default=0
    show_progress : bool, default=False

    Returns
    -------
    FusionSuggestion

    Raises
    ------
    TypeError, ValueError
        As `recfuse.fuse_topk`; ValueError if there are fewer than 2 queries with something
        relevant.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from recfuse.fusion import suggest_fusion
    >>> rng = np.random.default_rng(0)
    >>> items = {"text": rng.normal(size=(50, 4)), "noise": rng.normal(size=(50, 4))}
    >>> queries = {name: rng.normal(size=(30, 4)) for name in items}
    >>> relevant = sp.csr_array((queries["text"] @ items["text"].T > 2).astype(float))
    >>> suggestion = suggest_fusion(queries, items, relevant, k=5)
    >>> suggestion.options[0].quality >= suggestion.options[-1].quality
    True
    """
    if metric not in ("ndcg", "recall"):
        raise ValueError(f"metric must be 'ndcg' or 'recall'; got {metric!r}")
    if as_int(k, "k") < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    if similarity not in (None, "cosine", "dot"):
        raise ValueError(f"similarity must be 'cosine' or 'dot'; got {similarity!r}")
    if not 0 < as_float(held_out, "held_out") < 1:
        raise ValueError(f"held_out must be between 0 and 1; got {held_out}")
    if isinstance(items, FusedIndex):
        for name, given in (("similarity", similarity), ("present", present)):
            if given is not None:
                raise ValueError(f"{name} must be None where items is an index; got {given!r}")
        index = items
    else:
        index = FusedIndex(
            items,
            metric="cosine" if similarity is None else similarity,
            present=present,
            device=device,
            num_threads=num_threads,
        )
    asked = as_modalities(queries, "queries", index.modalities)
    shape = (len(next(iter(asked.values()))), index.n_items)
    left_out = None if exclude is None else as_csr(exclude, "exclude")
    wanted = as_csr(relevant, "relevant")
    if wanted.shape != shape:
        raise ValueError(f"relevant must have shape {shape}; got {wanted.shape}")
    wanted = without(sp.csr_array(wanted > 0), left_out)
    rng = as_rng(random_state)
    judged = rng.permutation(np.flatnonzero(np.diff(wanted.indptr)))
    if len(judged) < 2:
        raise ValueError(f"relevant must have at least 2 queries with an entry; got {len(judged)}")
    cut = min(max(1, round(held_out * len(judged))), len(judged) - 1)
    test, train = np.sort(judged[:cut]), np.sort(judged[cut:])
    cached = _zscores(index, _rows(asked, train), wanted[train], _some(left_out, train))
    fitted, _, _ = best_weights(cached, metric, k, rng)
    weights = dict(zip(index.modalities, fitted.tolist(), strict=True))

    calls = _options(index.modalities, weights)
    searches = {name: _late(index, k, arguments) for name, arguments in calls.items()}
    if len(index.modalities) > 1:
        searches["concatenated"] = _early(index, k)
        calls["concatenated"] = {}
    rows, excluded = _rows(asked, test), _some(left_out, test)
    gains, spent = {}, {}
    for name in progress(list(searches), description="suggest", enabled=show_progress):
        ids, seconds = _timed(partial(searches[name], rows, excluded))
        gains[name] = _gains(ids, wanted[test], metric, k)
        spent[name] = 1000 * seconds / len(test)
    return _compared(gains, spent, calls, metric, k)


def _options(names: list[str], weights: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Return names of the options and their arguments of a search."""
    alone = {name: {"weights": {other: float(other == name) for other in names}} for name in names}
    options: dict[str, dict[str, Any]] = {f"{name} alone": call for name, call in alone.items()}
    if len(names) == 1:
        return options
    options["sum"] = {}
    options["sum of z-scores"] = {"normalise": "zscore"}
    options["sum of ranges"] = {"normalise": "minmax"}
    options["fitted sum of z-scores"] = {"normalise": "zscore", "weights": weights}
    options.update({rule: {"fusion": rule} for rule in ("average", "product", "max", "min")})
    options["reciprocal ranks"] = {"fusion": "rrf"}
    return options


def _late(index: FusedIndex, k: int, arguments: dict[str, Any]) -> Search:
    def search(queries: dict[str, NDArray[np.float32]], exclude: Any) -> NDArray[np.int32]:
        ids: NDArray[np.int32] = index.topk(queries, k, exclude=exclude, **arguments)[0]
        return ids

    return search


def _early(index: FusedIndex, k: int) -> Search:
    unit = index._metric == "cosine"
    flags = {name: index._presence_of(name) for name in index.modalities}
    present = {name: mask for name, mask in flags.items() if mask is not None}
    joined = concatenate(index._items, normalise=unit, present=present or None)
    one = FusedIndex(
        {"all": joined}, metric="dot", device=index._device, num_threads=index._num_threads
    )

    def search(queries: dict[str, NDArray[np.float32]], exclude: Any) -> NDArray[np.int32]:
        vectors = {"all": concatenate(queries, normalise=unit)}
        ids: NDArray[np.int32] = one.topk(vectors, k, exclude=exclude)[0]
        return ids

    return search


def _timed(search: Callable[[], NDArray[np.int32]]) -> tuple[NDArray[np.int32], float]:
    ids = search()  # also makes what an index keeps
    runs = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        search()
        runs.append(time.perf_counter() - start)
    return ids, float(np.median(runs))


def _gains(ids: NDArray[np.int32], relevant: sp.csr_array, metric: str, k: int) -> Float64:
    """Return the metric of every list."""
    listed = np.where(ids >= 0, ids, 0)
    rows = np.arange(len(ids))[:, None]
    dense_hits = np.asarray(relevant[np.broadcast_to(rows, ids.shape).ravel(), listed.ravel()])
    hits = (dense_hits.reshape(ids.shape) > 0) & (ids >= 0)
    n = np.diff(relevant.indptr)
    if metric == "recall":
        return np.asarray(hits.sum(axis=1) / n)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    return np.asarray(hits @ discounts / np.cumsum(discounts)[np.minimum(n, k) - 1])


def _zscores(
    index: FusedIndex,
    queries: dict[str, NDArray[np.float32]],
    relevant: sp.csr_array,
    exclude: Any,
) -> CachedScores:
    """Return the z-scores of the best items of every modality."""
    pairs = None
    for name in queries:
        alone = {other: float(other == name) for other in queries}
        ids = index.topk(queries, _CANDIDATES, weights=alone, exclude=exclude)[0]
        pairs = union(pattern_of_lists(ids, index.n_items), pairs)
    assert pairs is not None
    _, scores = index.score_pairs(queries, pairs, missing="zero")
    row = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
    present = np.ones(scores.shape, bool)
    metric = index._metric
    for column, (name, q) in enumerate(queries.items()):
        flags = index._presence_of(name)
        mean, deviation = Moments.of(index._items[name], flags, metric).spread(q, metric)
        scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        scores[:, column] = (scores[:, column] - mean[row]) * scale[row]
        if flags is not None:
            present[:, column] = flags[pairs.indices]
    return CachedScores(
        pairs=pairs,
        scores=np.where(present, scores, 0),
        present=present,
        relevant=values_at(relevant, pairs) > 0,
        n_relevant=np.diff(relevant.indptr).astype(np.int64),
    )


def _compared(
    gains: dict[str, Float64],
    spent: dict[str, float],
    calls: dict[str, dict[str, Any]],
    metric: str,
    k: int,
) -> FusionSuggestion:
    best = max(gains, key=lambda name: gains[name].mean())
    options = []
    for name, values in gains.items():
        lost = gains[best] - values
        error = float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else 0.0
        behind = float(lost.mean()), error
        options.append(FusionOption(name, float(values.mean()), behind, spent[name], calls[name]))
    options.sort(key=lambda option: -option.quality)
    near = [option for option in options if option.behind[0] <= option.behind[1]]
    suggested = min(near, key=lambda option: option.milliseconds)
    return FusionSuggestion(options, suggested, metric, k, len(gains[best]))


def _rows(
    matrices: dict[str, NDArray[np.float32]], chosen: NDArray[np.intp]
) -> dict[str, NDArray[np.float32]]:
    return {name: matrix[chosen] for name, matrix in matrices.items()}


def _some(matrix: sp.csr_array | None, chosen: NDArray[np.intp]) -> sp.csr_array | None:
    return None if matrix is None else matrix[chosen]
