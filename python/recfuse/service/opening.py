"""A model file as what requests are answered from."""

from __future__ import annotations

import os
from typing import Any

from recfuse._base import Estimator
from recfuse._id_table import IdTable
from recfuse.models import Popularity
from recfuse.persistence import load
from recfuse.service.dense import DenseModel
from recfuse.service.folding import FactorFolding, Folding, MeanFolding, RecommenderFolding
from recfuse.service.lists import ListModel
from recfuse.serving.pipeline import Pipeline
from recfuse.serving.retriever import Retriever

__all__ = ["Served", "open_model", "served"]

Served = DenseModel | ListModel


def open_model(path: str | os.PathLike[str], threads: int = 0) -> Served:
    """Open a model file to be served.

    Raises
    ------
    FormatError, OSError
        As `recfuse.load`.
    TypeError
        If the model recommends nothing.
    """
    return served(load(path), threads)


def served(model: Any, threads: int = 0) -> Served:
    """Return a fitted model as what requests are answered from."""
    if isinstance(model, Estimator):
        model = model._recommender()
    labelled = hasattr(model, "users_") and hasattr(model, "interactions_")
    inner = model.model if labelled else model
    _run_here(inner, threads)
    if not isinstance(model, (Retriever, Pipeline)) and not hasattr(inner, "recommend"):
        raise TypeError(f"model must recommend items; got {type(inner).__name__}")
    if isinstance(inner, Popularity):  # feedback changes nobody's list, but for what is left out
        return ListModel(inner, *_labels_of(model, labelled))
    try:
        retriever = model if isinstance(model, Retriever) else Retriever.from_model(model)
    except (TypeError, ValueError):  # of neighbours, whose scores are sparse
        if isinstance(model, Pipeline):
            raise
        return ListModel(inner, *_labels_of(model, labelled))
    retriever = retriever.with_options(num_threads=threads)
    folding: Folding = MeanFolding(retriever)
    if hasattr(inner, "recommend_new_users"):
        folding = RecommenderFolding(inner, retriever)
    elif hasattr(inner, "fold_in"):
        histories = model.interactions_ if labelled else None
        folding = FactorFolding(inner, histories, retriever)
    return DenseModel(retriever, folding)


def _run_here(model: Any, threads: int) -> None:
    """Have a model and those within run where this process does, not where they were fitted."""
    here = {"num_threads": threads, "device": "auto", "device_bytes": None}
    for one in (model, *getattr(model, "models_", {}).values()):
        if isinstance(one, Estimator):
            one.set_params(**{name: value for name, value in here.items() if hasattr(one, name)})


def _labels_of(model: Any, labelled: bool) -> tuple[Any, ...]:
    """Return histories and tables of ids."""
    if labelled:
        tables = (IdTable.of(model.users_, "users_"), IdTable.of(model.items_, "items_"))
        return (model.interactions_, *tables)
    return (getattr(model, "user_items_", None), None, None)
