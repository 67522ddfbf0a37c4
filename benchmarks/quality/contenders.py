"""Who takes part: recfuse's models and those of peers, each with its ranges for tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from peers import BPR, EASE, IRSPACK, ImplicitALS, ImplicitNeighbours

import recfuse
from recfuse.evaluation import Trial

__all__ = ["Contender", "contenders", "valued"]

SIZES = (128, 256, 512)


@dataclass(frozen=True)
class Contender:
    """A model with its ranges.

    `make(params)` returns something with `fit(matrix)` and `recommend(users, k, user_items=rows)`.
    """

    name: str
    package: str
    suggest: Callable[[Trial], dict[str, Any]]
    make: Callable[[dict[str, Any]], Any]
    sizes: tuple[int, ...] = ()
    n_trials: int | None = None  # instead of those of the budget


def valued(matrix: sp.csr_array, how: str) -> sp.csr_array:
    """Return the matrix with ones, or as it is: what people gave to the items that they had."""
    if how == "given":
        return matrix
    ones = np.ones(matrix.nnz, np.float32)
    return sp.csr_array((ones, matrix.indices, matrix.indptr), shape=matrix.shape)


def _ials(trial: Trial) -> dict[str, Any]:
    # Frequency scaling 1: the regularization hardly depends on the size of the data (Rendle 2022).
    return {
        "regularization": trial.suggest_float("regularization", 0.0005, 0.03, log=True),
        "alpha": trial.suggest_float("alpha", 1, 300, log=True),
        "iterations": trial.suggest_int("iterations", 6, 16),
    }


def _implicit_als(trial: Trial) -> dict[str, Any]:
    return {
        "regularization": trial.suggest_float("regularization", 0.1, 300, log=True),
        "alpha": trial.suggest_float("alpha", 1, 300, log=True),
        "iterations": trial.suggest_int("iterations", 6, 16),
    }


def _bpr(trial: Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.005, 0.1, log=True),
        "lambda_reg": trial.suggest_float("lambda_reg", 0.0003, 0.03, log=True),
        "max_iter": trial.suggest_int("max_iter", 20, 100, log=True),
    }


def _neighbours(trial: Trial, largest: int = 1000) -> dict[str, Any]:
    weighting = trial.suggest_categorical("weighting", [None, "tfidf", "bm25"])
    found = {"k": trial.suggest_int("k", 20, largest, log=True), "weighting": weighting}
    if weighting == "bm25":
        found["bm25_k1"] = trial.suggest_float("bm25_k1", 0.1, 3, log=True)
        found["bm25_b"] = trial.suggest_float("bm25_b", 0, 1)
    found["shrinkage"] = trial.suggest_float("shrinkage", 0.1, 30, log=True)
    return found


def _implicit_bm25(trial: Trial) -> dict[str, Any]:
    return {
        "kind": "BM25Recommender",
        "K": trial.suggest_int("K", 20, 1000, log=True),
        "K1": trial.suggest_float("K1", 0.1, 3, log=True),
        "B": trial.suggest_float("B", 0, 1),
    }


def _implicit_cosine(trial: Trial) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ["CosineRecommender", "TFIDFRecommender"])
    return {"kind": kind, "K": trial.suggest_int("K", 20, 1000, log=True)}


def contenders(*, sizes: tuple[int, ...] = SIZES, dense: bool = False) -> list[Contender]:
    """Return all, recfuse's first; with `dense`, also who inverts a matrix of items x items."""

    def als(params: dict[str, Any]) -> Any:
        return recfuse.AlternatingLeastSquares(frequency_scaling=1, random_state=0, **params)

    found = [
        Contender("ALS", "recfuse", _ials, als, sizes),
        Contender("item neighbours", "recfuse", _neighbours, lambda p: recfuse.ItemNeighbours(**p)),
        Contender("user neighbours", "recfuse", _neighbours, lambda p: recfuse.UserNeighbours(**p)),
        Contender("iALS", "irspack", _ials, lambda p: IRSPACK(**p), sizes),
        Contender(
            "ALS",
            "implicit",
            _implicit_als,
            lambda p: ImplicitALS(**p),
            sizes,
        ),
        Contender("BM25", "implicit", _implicit_bm25, lambda p: ImplicitNeighbours(**p)),
        Contender(
            "cosine or TF-IDF", "implicit", _implicit_cosine, lambda p: ImplicitNeighbours(**p)
        ),
        Contender("BPR", "cornac", _bpr, lambda p: BPR(**p), tuple(s // 2 for s in sizes)),
    ]
    if dense:
        found.append(
            Contender(
                "EASE",
                "cornac",
                lambda t: {"lamb": t.suggest_float("lamb", 10, 5000, log=True)},
                lambda p: EASE(**p),
                n_trials=8,  # one parameter, and half a minute each among 9,000 films
            )
        )
    return found
