"""Second stage: a network in an ONNX file scores the candidates that a search has found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_float, as_ids, as_int, check_ids
from recfuse._merge import best_of
from recfuse._named import named
from recfuse._progress import progress
from recfuse.serving._batches import TensorSpec
from recfuse.serving.encoder import OnnxEncoder

__all__ = ["OnnxRanker"]

Float32 = NDArray[np.float32]


class OnnxRanker:
    """A network from an ONNX file that scores pairs of user and item: deep fusion.

    The network takes features of the user and of the item, and gives one number per pair. It is
    far too slow for a whole catalogue, so a search finds candidates and `rerank` orders them anew.
    Features stay where they are, one row per user or item; those of a batch of pairs are gathered.

    Parameters
    ----------
    path_or_bytes : str, path-like or bytes
        The model, as `OnnxEncoder` takes it.
    users : mapping input -> array-like of shape (n_users, ...), optional
        Features of the users, by the names of the model's inputs. Memory-mapped arrays are read
        row by row.
    items : mapping input -> array-like of shape (n_items, ...), optional
        Features of the items. `users`, `items` and `scores_input` name every input exactly once.
    scores_input : str, optional
        The input that is fed what the search says about a pair: its score, or the parts of all
        modalities (``contributions=True``).
    output : str, optional
        Name of the output that ranks. Needed only where the model has several.
    batch_size : int, default=4096
        Pairs per run of the model.
    device : {'auto', 'cpu', 'cuda'}, default='auto'
    num_threads : int, default=0
        As in `OnnxEncoder`.

    Attributes
    ----------
    input_names : tuple of str
    output_name : str
    n_users, n_items : int or None
        Rows of the features; None where there are none.

    Raises
    ------
    ImportError, FileNotFoundError, FormatError, DeviceError
        As `OnnxEncoder`.
    ValueError, TypeError
        If an input is named by none or by several of the arguments, if features do not suit
        their input or each other, or if the output is not one number per row.

    Examples
    --------
    >>> import onnx.parser
    >>> from recfuse.serving import OnnxRanker
    >>> model = onnx.parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 17]>
    ...     product (float[n, 1] age, float[n, 1] year) => (float[n, 1] y) { y = Mul(age, year) }
    ... ''')
    >>> ranker = OnnxRanker(
    ...     model.SerializeToString(), users={"age": [[2], [3]]}, items={"year": [[1], [5], [4]]}
    ... )
    >>> ranker.score([0, 1], [2, 1])
    array([ 8., 15.], dtype=float32)
    >>> ids, scores = ranker.rerank([[0, 2, 1], [2, 0, -1]], k=2)
    >>> ids.tolist(), scores.tolist()
    ([[1, 2], [2, 0]], [[10.0, 8.0], [12.0, 3.0]])
    """

    @named("OnnxRanker")
    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        *,
        users: Mapping[str, ArrayLike] | None = None,
        items: Mapping[str, ArrayLike] | None = None,
        scores_input: str | None = None,
        output: str | None = None,
        batch_size: int = 4096,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        num_threads: int = 0,
    ) -> None:
        self._encoder = OnnxEncoder(
            path_or_bytes,
            output=output,
            batch_size=batch_size,
            device=device,
            num_threads=num_threads,
        )
        if self._encoder.dim not in (None, 1):
            raise ValueError(
                f"OnnxRanker: output must be one number per row; "
                f"got {self.output_name!r} with {self._encoder.dim}"
            )
        self._batch_size = int(batch_size)
        self._scores_input = scores_input
        specs = {spec.name: spec for spec in self._encoder._inputs}
        self._check_names({} if users is None else users, {} if items is None else items)
        self._users = _features(users, "users", specs)
        self._items = _features(items, "items", specs)

    def _check_names(self, users: Mapping[str, Any], items: Mapping[str, Any]) -> None:
        for argument, mapping in (("users", users), ("items", items)):
            if not isinstance(mapping, Mapping):
                raise TypeError(
                    f"OnnxRanker: {argument} must be a mapping input -> array; "
                    f"got {type(mapping).__name__}"
                )
        of_search = [] if self._scores_input is None else [self._scores_input]
        given = [*users, *items, *of_search]
        if sorted(map(str, given)) != sorted(self.input_names):
            raise ValueError(
                "OnnxRanker: users, items and scores_input must name every input of "
                f"{list(self.input_names)} once; got {list(users)}, {list(items)} and {of_search}"
            )

    @property
    def input_names(self) -> tuple[str, ...]:
        return self._encoder.input_names

    @property
    def output_name(self) -> str:
        return self._encoder.output_name

    @property
    def n_users(self) -> int | None:
        return _n_rows(self._users)

    @property
    def n_items(self) -> int | None:
        return _n_rows(self._items)

    def __repr__(self) -> str:
        names = ", ".join(self.input_names)
        return f"OnnxRanker({names} -> {self.output_name}, device={self._encoder.device!r})"

    @named("score")
    def score(
        self,
        users: ArrayLike,
        items: ArrayLike,
        scores: ArrayLike | None = None,
        *,
        show_progress: bool = False,
    ) -> Float32:
        """Score pairs of user and item.

        Parameters
        ----------
        users, items : array-like of int of shape (n,)
            Pair i is ``(users[i], items[i])``; one user or one item goes with all of the others.
        scores : array-like of shape (n,) or (n, m), optional
            What `scores_input` is fed: required with it, refused without.
        show_progress : bool, default=False
            Show a bar on standard error (extra ``recfuse[progress]``).

        Returns
        -------
        ndarray of shape (n,), float32

        Raises
        ------
        IndexError
            If a user or an item has no row of features.
        ValueError, TypeError
            If lengths differ, `scores` is missing or superfluous, or the model gives a NaN or
            infinity.
        """
        user_ids = self._known(users, "users", self.n_users)
        item_ids = self._known(items, "items", self.n_items)
        if len(user_ids) != len(item_ids) and 1 not in (len(user_ids), len(item_ids)):
            raise ValueError(
                f"score: items must be as many as users ({len(user_ids)}); got {len(item_ids)}"
            )
        user_ids, item_ids = np.broadcast_arrays(user_ids, item_ids)
        fed = self._fed(scores, len(user_ids))
        out = np.empty(len(user_ids), np.float32)
        starts = range(0, len(user_ids), self._batch_size)
        for start in progress(starts, description="score", enabled=show_progress):
            rows = slice(start, start + self._batch_size)
            inputs = {name: block[user_ids[rows]] for name, block in self._users.items()}
            inputs.update({name: block[item_ids[rows]] for name, block in self._items.items()})
            if self._scores_input is not None and fed is not None:
                inputs[self._scores_input] = fed[rows]
            out[rows] = self._one_each(self._encoder.encode(inputs))
        return out

    @named("rerank")
    def rerank(
        self,
        ids: ArrayLike,
        scores: ArrayLike | None = None,
        k: int = 10,
        *,
        users: ArrayLike | None = None,
        weight: float = 1.0,
        show_progress: bool = False,
    ) -> tuple[NDArray[np.int32], Float32]:
        """Order candidates by the network's score.

        ``ranker.rerank(*model.recommend(users, k=200), k=20, users=users)`` is the usual call.

        Parameters
        ----------
        ids : array-like of int of shape (n_queries, n_candidates)
            Items, each at most once in a row; -1 is padding.
        scores : array-like of shape (n_queries, n_candidates) or (n_queries, n_candidates, m)
            Of the search, for `scores_input` and for a `weight` below 1; otherwise not looked at.
        k : int, default=10
        users : array-like of int of shape (n_queries,), optional
            The user of each row; by default row i is user i, and there is a row for every user.
        weight : float, default=1.0
            In [0, 1]: the result is ``weight * network + (1 - weight) * scores``, in float64 and
            rounded once. Below 1 both should be on one scale.
        show_progress : bool, default=False

        Returns
        -------
        ids : ndarray of shape (n_queries, k), int32
            Score descending, then id ascending; -1 for padding.
        scores : ndarray of shape (n_queries, k), float32
            -inf for padding.

        Raises
        ------
        IndexError
            If a user or an item has no row of features.
        ValueError, TypeError
            If a shape or a type is wrong, `scores` is missing where it is needed, or the model
            gives a NaN or infinity.
        """
        k, weight = as_int(k, "k"), as_float(weight, "weight")
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        if not 0 <= weight <= 1:
            raise ValueError(f"weight must be in [0, 1]; got {weight}")
        candidates = _candidates(ids)
        user_ids = self._users_of(users, len(candidates))
        searched = _scores_like(scores, candidates, plain=weight < 1)
        rows, places = np.nonzero(candidates >= 0)
        pairs = user_ids[rows], candidates[rows, places]
        fed = None
        if self._scores_input is not None and searched is not None:
            fed = searched[rows, places]
        ranked = self.score(*pairs, fed, show_progress=show_progress)
        if weight < 1 and searched is not None:
            blended = weight * ranked.astype(np.float64)
            ranked = (blended + (1 - weight) * searched[rows, places]).astype(np.float32)
        return _best(candidates, rows, places, ranked, k)

    def _known(self, ids: ArrayLike, name: str, n_rows: int | None) -> NDArray[np.int64]:
        checked = as_ids(ids, name)
        # Without features there is nothing to look up, so no id is unknown.
        return checked if n_rows is None else check_ids(checked, n_rows, name)

    def _users_of(self, users: ArrayLike | None, n_queries: int) -> NDArray[np.int64]:
        if users is None:
            if self.n_users not in (None, n_queries):
                raise ValueError(
                    f"users must be given where ids has no row for each of {self.n_users} users; "
                    f"got {n_queries} rows"
                )
            return np.arange(n_queries)
        known = self._known(users, "users", self.n_users)
        if len(known) != n_queries:
            raise ValueError(f"users must be one per row of ids ({n_queries}); got {len(known)}")
        return known

    def _fed(self, scores: ArrayLike | None, n_pairs: int) -> NDArray[Any] | None:
        if self._scores_input is None:
            if scores is not None:
                raise ValueError("score: scores must be None without scores_input; got an array")
            return None
        if scores is None:
            raise ValueError(
                f"scores must be given, for the input {self._scores_input!r}; got None"
            )
        fed = np.asarray(scores)
        if len(fed) != n_pairs:
            raise ValueError(f"scores must have one row per pair ({n_pairs}); got {len(fed)}")
        # A model takes a column of scores as (n, 1); whoever has one score per pair has (n,).
        spec = next(s for s in self._encoder._inputs if s.name == self._scores_input)
        column = fed.ndim == 1 and spec.shape is not None and len(spec.shape) == 2
        return fed[:, None] if column else fed

    def _one_each(self, output: NDArray[Any]) -> Float32:
        if output.shape[1] != 1:
            raise ValueError(
                f"score: output {self.output_name!r} must be one number per row; "
                f"got {output.shape[1]}"
            )
        return output[:, 0]


def _features(
    blocks: Mapping[str, ArrayLike] | None, argument: str, specs: Mapping[str, TensorSpec]
) -> dict[str, NDArray[Any]]:
    """Return arrays with one row per user or item that suit their inputs."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, block in ({} if blocks is None else blocks).items():
        label, spec, array = f"{argument}[{name!r}]", specs[name], np.asarray(block)
        if array.ndim == 0 or not _suits(array.shape, spec.shape):
            raise ValueError(f"OnnxRanker: {label} must have shape {spec}; got {array.shape}")
        arrays[name] = array
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"OnnxRanker: {argument} must have one number of rows in every block; got {lengths}"
        )
    return arrays


def _suits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    """Whether an array fits an input, whatever the number of rows."""
    if wanted is None:
        return True
    axes = zip(wanted[1:], shape[1:], strict=False)
    return len(shape) == len(wanted) and all(want in (None, got) for want, got in axes)


def _n_rows(blocks: Mapping[str, NDArray[Any]]) -> int | None:
    return next((len(block) for block in blocks.values()), None)


def _candidates(ids: ArrayLike) -> NDArray[np.int32]:
    array = np.asarray(ids)
    if array.ndim != 2:
        raise ValueError(f"ids must have 2 dimensions; got shape {array.shape}")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers; got dtype {array.dtype}")
    if array.size and (array.min() < -1 or array.max() > np.iinfo(np.int32).max):
        wrong = array.min() if array.min() < -1 else array.max()
        raise IndexError(f"ids must be item ids, or -1 for padding; got {wrong}")
    return array.astype(np.int32)


def _scores_like(
    scores: ArrayLike | None, ids: NDArray[np.int32], *, plain: bool
) -> NDArray[Any] | None:
    """Return the scores of a search; `plain` ones are needed, and one per candidate."""
    if scores is None:
        if plain:
            raise ValueError("scores must be given with a weight below 1; got None")
        return None
    array = np.asarray(scores)
    if array.shape[:2] != ids.shape or array.ndim > (2 if plain else 3):
        raise ValueError(f"scores must have shape {ids.shape} like ids; got {array.shape}")
    return array


def _best(
    candidates: NDArray[np.int32],
    rows: NDArray[np.intp],
    places: NDArray[np.intp],
    ranked: Float32,
    k: int,
) -> tuple[NDArray[np.int32], Float32]:
    scores = np.full(candidates.shape, -np.inf, np.float32)
    scores[rows, places] = ranked
    width = min(k, candidates.shape[1])
    ids = np.full((len(candidates), k), -1, np.int32)
    out = np.full((len(candidates), k), -np.inf, np.float32)
    ids[:, :width], out[:, :width] = best_of(candidates, scores, k=width)
    return ids, out
