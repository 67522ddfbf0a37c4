"""Models of other packages behind `fit` and `recommend`, each at its own defaults otherwise."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np
import scipy.sparse as sp

import recfuse

__all__ = ["BPR", "EASE", "IRSPACK", "ImplicitALS", "ImplicitNeighbours"]


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _matrix(csr: sp.csr_array) -> sp.csr_matrix:
    """Return what peers take: the older class, int32 indices."""
    parts = csr.data, csr.indices.astype(np.int32), csr.indptr.astype(np.int32)
    return sp.csr_matrix(parts, shape=csr.shape)


@contextlib.contextmanager
def _silent() -> Any:
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):  # noqa: PTH123
        yield


class _Factors:
    """Lists by inner products, by `recfuse.topk`: exact, whoever learned the factors."""

    users: Any
    items: Any

    def recommend(self, users: Any, k: int, *, user_items: Any) -> tuple[Any, Any]:
        return recfuse.topk(self.users[users], self.items, k, exclude=user_items)


class ImplicitALS(_Factors):
    """ALS of implicit."""

    def __init__(self, **params: Any) -> None:
        self.params = params

    def fit(self, matrix: sp.csr_array) -> ImplicitALS:
        from implicit.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        model = AlternatingLeastSquares(num_threads=_threads(), random_state=0, **self.params)
        with threadpool_limits(1, "blas"):
            model.fit(_matrix(matrix), show_progress=False)
        self.users, self.items = model.user_factors, model.item_factors
        return self


class ImplicitNeighbours:
    """Item neighbours of implicit; the lists are its own."""

    def __init__(self, kind: str, **params: Any) -> None:
        self.kind, self.params = kind, params

    def fit(self, matrix: sp.csr_array) -> ImplicitNeighbours:
        from implicit import nearest_neighbours

        self.model = getattr(nearest_neighbours, self.kind)(num_threads=_threads(), **self.params)
        self.model.fit(_matrix(matrix), show_progress=False)
        return self

    def recommend(self, users: Any, k: int, *, user_items: Any) -> tuple[Any, Any]:
        ids, scores = self.model.recommend(users, _matrix(user_items), N=k)
        lacks = (scores <= 0) | (ids < 0)  # it pads where no neighbour speaks for enough items
        return np.where(lacks, -1, ids), np.where(lacks, -np.inf, scores)


class IRSPACK(_Factors):
    """iALS of irspack with the same parameters as recfuse's: its alpha0 is 1 / alpha."""

    def __init__(self, factors: int, regularization: float, alpha: float, iterations: int) -> None:
        self.params: dict[str, Any] = {
            "n_components": factors,
            "reg": regularization,
            "alpha0": 1 / alpha,
            "train_epochs": iterations,
            "nu": 1.0,
        }

    def fit(self, matrix: sp.csr_array) -> IRSPACK:
        from irspack import IALSRecommender

        self.model = IALSRecommender(
            _matrix(matrix), n_threads=_threads(), random_seed=0, **self.params
        )
        with _silent():
            self.model.learn()
        self.users = np.asarray(self.model.get_user_embedding(), np.float32)
        self.items = np.asarray(self.model.get_item_embedding(), np.float32)
        return self


class BPR(_Factors):
    """BPR of cornac, with its item biases."""

    def __init__(self, factors: int, **params: Any) -> None:
        self.params = {"k": factors, **params}

    def fit(self, matrix: sp.csr_array) -> BPR:
        from cornac.models import BPR as Model

        model = Model(num_threads=_threads(), seed=0, **self.params)
        data, rows, columns = _cornac(matrix)
        model.fit(data)
        self.users = np.zeros((matrix.shape[0], model.k + 1), np.float32)
        self.items = np.zeros((matrix.shape[1], model.k + 1), np.float32)
        self.items[:, -1] = -1e6  # what it has not seen comes last
        self.users[rows] = np.hstack([model.u_factors, np.ones((len(rows), 1))])
        self.items[columns] = np.hstack([model.i_factors, model.i_biases[:, None]])
        return self


class EASE:
    """EASE of cornac: every score is dense."""

    def __init__(self, **params: Any) -> None:
        self.params = params

    def fit(self, matrix: sp.csr_array) -> EASE:
        from cornac.models import EASE as Model

        model = Model(posB=False, seed=0, verbose=False, **self.params)
        data, _, columns = _cornac(matrix)
        model.fit(data)
        self.columns, self.weights = columns, np.asarray(model.B, np.float32)
        self.matrix = matrix
        return self

    def recommend(self, users: Any, k: int, *, user_items: Any) -> tuple[Any, Any]:
        scores = np.full((len(users), self.matrix.shape[1]), -np.inf, np.float32)
        scores[:, self.columns] = self.matrix[users][:, self.columns] @ self.weights
        rows = np.repeat(np.arange(len(users)), np.diff(user_items.indptr))
        scores[rows, user_items.indices] = -np.inf
        ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, ids, axis=1)
        return np.where(np.isfinite(best), ids, -1), best


def _cornac(matrix: sp.csr_array) -> tuple[Any, Any, Any]:
    """Return a data set of cornac, and which users and items its rows and columns are."""
    from cornac.data import Dataset

    coo = matrix.tocoo()
    rows, row = np.unique(coo.row, return_inverse=True)
    columns, column = np.unique(coo.col, return_inverse=True)
    same_users = {int(i): int(i) for i in range(len(rows))}
    same_items = {int(i): int(i) for i in range(len(columns))}
    triples = zip(row.tolist(), column.tolist(), coo.data.tolist(), strict=True)
    data = Dataset.build(
        list(triples), global_uid_map=same_users, global_iid_map=same_items, seed=0
    )
    return data, rows, columns
