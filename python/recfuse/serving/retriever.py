"""A fitted model as what a service needs of it: a search that one file holds for any language."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse import storage
from recfuse._id_table import IdTable
from recfuse._inputs import as_csr, as_ids, as_matrix, check_ids, is_sparse
from recfuse._named import named
from recfuse._retrieval import Retrieval
from recfuse._retrieval_file import described, parsed
from recfuse.errors import FormatError
from recfuse.index import FusedIndex
from recfuse.persistence import NO_ESTIMATOR, load

__all__ = ["Retriever"]

_KIND = "retriever"
Lists = tuple[Any, ...]
Rows = NDArray[np.int64]


class Retriever:
    """Exact dense search with users, items, weights and what has been seen: a model to be served.

    Made of a fitted model (`from_model`) or of a file (`load`), never by hand. Python, C++
    (`recfuse/model.hpp`) and C (`recfuse/recfuse.h`) read the same files and return the same bytes.

    Attributes
    ----------
    modalities : list of str
    dims : dict of str to int
        Of the vectors that `search` takes.
    weights : dict of str to float
        Of the modalities, where neither a request nor a user has others.
    n_users : int or None
        None where users have no vectors, as those of a `FusedIndex`.
    n_items : int

    Examples
    --------
    >>> import tempfile, os, recfuse
    >>> from recfuse.serving import Retriever
    >>> events = recfuse.Interactions.from_arrays(
    ...     ["ann", "ann", "bob", "bob"], ["tea", "milk", "tea", "rice"]
    ... )
    >>> als = recfuse.AlternatingLeastSquares(factors=2, random_state=0)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.recfuse")
    >>> recfuse.LabelledModel(als).fit(events).save(path)
    >>> items, scores = Retriever.load(path).recommend(["bob"], k=1)
    >>> items.tolist()
    [['milk']]
    """

    def __init__(self, retrieval: Retrieval) -> None:
        self._parts = retrieval

    @classmethod
    @named("from_model")
    def from_model(cls, model: Any) -> Retriever:
        """Make the search that answers as a fitted model does.

        Parameters
        ----------
        model : AlternatingLeastSquares, Popularity, MultimodalRecommender, or FusedIndex
            A `LabelledModel` of one, or a pipeline: `preprocess.Pipeline` that ends in one, or
            `serving.Pipeline`.
            A `MultimodalRecommender` has the vectors of all of its users computed: the bytes of
            its `recommend` for all users. Neighbours must have no weight.

        Returns
        -------
        Retriever
            Has views of the arrays of the model, which is not to be changed.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Before `fit`; if the model is none of these; if modalities with a weight are no vectors.
        """
        if not hasattr(model, "_retrieval"):
            raise TypeError(f"model must be a model of recfuse; got {type(model).__name__}")
        return cls(model._retrieval())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool | None = None) -> Retriever:
        """Open a file of `save`, or of a model that can be a `Retriever`; its arrays stay mapped.

        Parameters
        ----------
        path : str or path-like
        verify : bool, optional
            As in `recfuse.load`.

        Returns
        -------
        Retriever

        Raises
        ------
        FormatError, OSError
            As `recfuse.load`. What is inside of a large file is checked where it is used, and
            raises FormatError there.
        TypeError, ValueError
            If the model of the file cannot be a `Retriever`.
        """
        file = storage.open_file(path, verify=verify)
        if "retrieval" in file.metadata:
            return cls._of_file(file, os.fspath(path))
        model = load(path, verify=False)
        try:
            return cls.from_model(model)
        except NO_ESTIMATOR as error:
            if isinstance(error, (TypeError, ValueError)):
                raise
            name = os.fspath(path)
            raise FormatError(f"load: {name!r} must describe a model; {error}") from error

    @classmethod
    def _of_file(cls, file: storage.StoredFile, path: str) -> Retriever:
        try:
            return cls(parsed(file.metadata.get("retrieval"), file.arrays.views))
        except FormatError as error:
            raise FormatError(f"load: {path!r} {error}") from error.__cause__

    @named("save")
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, in one step; `load` and `recfuse.load` read it, and C++ and C do.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        arrays: dict[str, Any] = {}
        metadata = {"retrieval": described(self._parts, arrays)}
        storage.write(path, arrays, metadata, kind=_KIND)

    @property
    def modalities(self) -> list[str]:
        return self._parts.names

    @property
    def dims(self) -> dict[str, int]:
        return {modality.name: modality.items.dim for modality in self._parts.modalities}

    @property
    def weights(self) -> dict[str, float]:
        return dict(zip(self.modalities, self._parts.weights, strict=True))

    @property
    def n_users(self) -> int | None:
        return self._parts.n_users

    @property
    def n_items(self) -> int:
        return self._parts.n_items

    def prepare(self) -> Retriever:
        """Make the index now, with a look at all items, instead of at the first request."""
        _ = self._index
        return self

    @functools.cached_property
    def _index(self) -> FusedIndex:
        return self._index_over(
            {modality.name: modality.items.matrix() for modality in self._parts.modalities},
            self._parts.metric,
        )

    @functools.cached_property
    def _similar_index(self) -> FusedIndex:
        """Cosines between items, by the modalities that have a weight for that."""
        return self._index_over(
            {
                modality.name: modality.likeness.matrix()
                for modality, weight in zip(
                    self._parts.modalities, self._similar_weights, strict=True
                )
                if weight != 0
            },
            "cosine",
        )

    @property
    def _similar_weights(self) -> tuple[float, ...]:
        alike = self._parts.similar_weights
        return self._parts.weights if alike is None else alike

    def _index_over(self, items: dict[str, NDArray[np.float32]], metric: str) -> FusedIndex:
        present = self._parts.present
        flags = None
        if present is not None:
            flags = {name: present[:, self.modalities.index(name)] != 0 for name in items}
        return FusedIndex(items, metric=metric, present=flags, **self._parts.options)

    @named("recommend")
    def recommend(
        self,
        user_ids: Any,
        k: int = 10,
        *,
        weights: Mapping[str, ArrayLike] | None = None,
        exclude_seen: bool = True,
        exclude: Any = None,
        allow: Any = None,
        contributions: bool = False,
    ) -> Lists:
        """Recommend items to users of the model.

        Parameters
        ----------
        user_ids : id or sequence of ids
            As the model was fitted with; integers in [0, n_users) where it knows no others.
        k : int, default=10
        weights : mapping modality -> float or array-like of shape (n,), optional
            Instead of those of the user; modalities that are not named get 0.
        exclude_seen : bool, default=True
            Leave out what the file knows the user to have.
        exclude, allow : sequence of item ids, or sparse of shape (n, n_items), optional
            For all of these users, or for each; of a matrix the stored entries count.
        contributions : bool, default=False

        Returns
        -------
        ids : ndarray of shape (n, k)
            Item ids, best first: objects with None for padding where the model knows ids, else
            int32 with -1.
        scores : ndarray of shape (n, k), float32
            -inf for padding.
        parts : ndarray of shape (n, k, n_modalities), float64
            With `contributions` only: the terms of every score, as of `FusedIndex.topk`.

        Raises
        ------
        KeyError, IndexError
            If an id is unknown: KeyError where the model knows ids, IndexError for a number.
        TypeError, ValueError
            If an argument is wrong, or the users have no vectors.
        """
        rows = self.user_rows(user_ids)
        queries = {
            modality.name: modality.users.rows(rows)
            for modality in self._parts.modalities
            if modality.users is not None
        }
        if weights is None and self._parts.user_weights is not None:
            per_user = self._parts.user_weights[rows]
            weights = {name: per_user[:, m] for m, name in enumerate(self.modalities)}
        seen = self._parts.seen.rows(rows) if exclude_seen and self._parts.seen else None
        return self._search(queries, k, weights, seen, exclude, allow, contributions)

    @named("search")
    def search(
        self,
        vectors: Mapping[str, ArrayLike],
        k: int = 10,
        *,
        weights: Mapping[str, ArrayLike] | None = None,
        exclude: Any = None,
        allow: Any = None,
        contributions: bool = False,
    ) -> Lists:
        """Find the best items for vectors.

        Parameters
        ----------
        vectors : mapping modality -> array-like of shape (n, dim_m) or (dim_m,)
            In the space of the items of the file (`dims`). A modality that is not named has no
            weight.
        k, weights, exclude, allow, contributions
            As in `recommend`.

        Returns
        -------
        ids, scores, parts
            As `recommend`.

        Raises
        ------
        KeyError, IndexError, TypeError, ValueError
            As `recommend`; if a modality is unknown or a vector is as long as no item's.
        """
        if not isinstance(vectors, Mapping) or not vectors or set(vectors) - set(self.modalities):
            got = list(vectors) if isinstance(vectors, Mapping) else type(vectors).__name__
            raise ValueError(f"vectors must name modalities of {self.modalities}; got {got}")
        queries = {
            name: as_matrix(np.atleast_2d(np.asarray(x)), f"vectors[{name!r}]")
            for name, x in vectors.items()
        }
        n = len(next(iter(queries.values())))
        if weights is None:
            weights = {name: self.weights[name] for name in queries}
        for name, dim in self.dims.items():
            queries.setdefault(name, np.zeros((n, dim), np.float32))
        return self._search(queries, k, weights, None, exclude, allow, contributions)

    @named("similar")
    def similar(
        self,
        item_ids: Any,
        k: int = 10,
        *,
        weights: Mapping[str, float] | None = None,
        exclude: Any = None,
        allow: Any = None,
    ) -> Lists:
        """Find the items most like given ones: by the weighted cosines of their vectors.

        Parameters
        ----------
        item_ids : id or sequence of ids
        k : int, default=10
        weights : mapping modality -> float, optional
            By default those of content for a `MultimodalRecommender`, of all modalities else.
        exclude, allow
            As in `recommend`. The item itself is always left out.

        Returns
        -------
        ids, scores
            As `recommend`. Nothing but padding for an item without any of these modalities.

        Raises
        ------
        KeyError, IndexError, TypeError, ValueError
            As `recommend`; if a modality is not compared by the model.
        """
        rows = self.item_rows(item_ids)
        if not any(self._similar_weights):
            raise ValueError("model must have a modality by which items are alike; got none")
        index = self._similar_index
        chosen = dict(zip(self.modalities, self._similar_weights, strict=True))
        chosen = {name: chosen[name] for name in index.modalities}
        if weights is not None:
            unknown = set(weights) - set(chosen)
            if unknown:
                raise ValueError(f"weights must name {list(chosen)}; got {sorted(unknown)}")
            chosen = {name: float(weights.get(name, 0.0)) for name in chosen}
        likeness = {m.name: m.likeness for m in self._parts.modalities}
        queries = {name: likeness[name].rows(rows) for name in chosen}
        per_item = {name: np.full(len(rows), weight) for name, weight in chosen.items()}
        for name in chosen:
            if self._parts.present is not None:
                per_item[name] *= self._parts.present[rows, self.modalities.index(name)] != 0
        nothing = ~np.any(list(per_item.values()), axis=0)
        for weight in per_item.values():
            weight[nothing] = 1.0  # a search needs one; the list is emptied below
        itself = _ones(rows, self.n_items)
        ids, scores = index.topk(
            queries,
            k,
            weights=per_item,
            exclude=_together(itself, self._filter(exclude, "exclude", len(rows))),
            allow=self._filter(allow, "allow", len(rows), as_list=True),
        )
        ids[nothing], scores[nothing] = -1, -np.inf
        return self.item_labels(ids), scores

    def _search(
        self,
        queries: dict[str, NDArray[np.float32]],
        k: int,
        weights: Mapping[str, ArrayLike] | None,
        seen: sp.csr_array | None,
        exclude: Any,
        allow: Any,
        contributions: bool,
    ) -> Lists:
        n = len(queries[self.modalities[0]])
        excluded = self._filter(exclude, "exclude", n)
        ids, *rest = self._index.topk(
            queries,
            k,
            weights=self._weights(weights, queries, n),
            missing=self._parts.missing,
            exclude=excluded if seen is None else _together(seen, excluded),
            allow=self._filter(allow, "allow", n, as_list=True),
            contributions=contributions,
        )
        return (self.item_labels(ids), *rest)

    def _weights(
        self,
        weights: Mapping[str, ArrayLike] | None,
        queries: Mapping[str, NDArray[np.float32]],
        n: int,
    ) -> dict[str, NDArray[np.float64]]:
        """Return a weight per modality and query, those of the fallback included."""
        given = self.weights if weights is None else weights
        if not isinstance(given, Mapping) or set(given) - set(self.modalities):
            got = list(given) if isinstance(given, Mapping) else type(given).__name__
            raise ValueError(f"weights must name modalities of {self.modalities}; got {got}")
        rows = {}
        for name in self.modalities:
            values = np.asarray(given.get(name, 0.0), np.float64)
            if values.shape not in ((), (n,)):
                raise ValueError(
                    f"weights[{name!r}] must be a number or have shape ({n},); got {values.shape}"
                )
            rows[name] = np.array(np.broadcast_to(values, n))
        if self._parts.fallback is not None:
            told = [queries[name].any(axis=1) & (rows[name] != 0) for name in self.modalities]
            rows[self.modalities[self._parts.fallback]][~np.any(told, axis=0)] = 1.0
        return rows

    def _filter(self, items: Any, name: str, n: int, *, as_list: bool = False) -> Any:
        if items is None or is_sparse(items):
            return None if items is None else as_csr(items, name)
        rows = np.unique(self.item_rows(items, name))
        if as_list:
            return rows
        indptr = np.arange(n + 1) * len(rows)
        entries = (np.ones(n * len(rows), np.float32), np.tile(rows, n), indptr)
        return sp.csr_array(entries, shape=(n, self.n_items))

    def user_rows(self, user_ids: Any) -> Rows:
        """Return the rows of users; KeyError or IndexError if one is unknown."""
        if self.n_users is None:
            raise ValueError("model must have vectors of users; got one of items alone: use search")
        return _rows(self._parts.user_ids, user_ids, self.n_users, "user_ids")

    def item_rows(self, item_ids: Any, name: str = "item_ids") -> Rows:
        """Return the rows of items; KeyError or IndexError if one is unknown."""
        return _rows(self._parts.item_ids, item_ids, self.n_items, name)

    def item_labels(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return the ids of rows: objects, None for -1; the rows where the model knows no ids."""
        table = self._parts.item_ids
        return rows if table is None else table.labels(rows)

    def with_options(self, *, device: str = "auto", num_threads: int = 0) -> Retriever:
        """Return the same search on another device, or with so many threads."""
        options = {"device": device, "num_threads": num_threads}
        return type(self)(replace(self._parts, options=options))


def _rows(table: IdTable | None, ids: Any, n: int, name: str) -> Rows:
    if table is None:
        return check_ids(as_ids(ids, name), n, name)
    several = isinstance(ids, (list, np.ndarray, range)) or hasattr(ids, "__array__")
    labels = list(ids) if several else [ids]
    rows = table.find(labels)
    if None in rows:
        raise KeyError(f"{name} must be known; got {labels[rows.index(None)]!r}")
    return np.array(rows, np.int64)


def _ones(rows: Rows, n_items: int) -> sp.csr_array:
    ones = np.ones(len(rows), np.float32)
    return sp.csr_array((ones, rows, np.arange(len(rows) + 1)), shape=(len(rows), n_items))


def _together(matrix: sp.csr_array, other: sp.csr_array | None) -> sp.csr_array:
    """Return the entries of one filter or of both."""
    if other is None:
        return matrix
    if other.shape != matrix.shape:
        raise ValueError(f"exclude must have shape {matrix.shape}; got {other.shape}")
    ones = [  # entries count, whatever their values: a sum would drop zeros
        sp.csr_array((np.ones(len(m.indices), np.float32), m.indices, m.indptr), shape=m.shape)
        for m in (matrix, other)
    ]
    return as_csr(sp.csr_array(ones[0] + ones[1]), "exclude")
