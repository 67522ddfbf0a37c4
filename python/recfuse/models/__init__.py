"""Models of behaviour: one estimator a file."""

from __future__ import annotations

from recfuse.models.als import AlternatingLeastSquares
from recfuse.models.labelled import LabelledModel
from recfuse.models.neighbours import ItemNeighbours, UserNeighbours
from recfuse.models.popularity import Popularity
from recfuse.models.weighting import bm25_weight, tfidf_weight

__all__ = [
    "AlternatingLeastSquares",
    "ItemNeighbours",
    "LabelledModel",
    "Popularity",
    "UserNeighbours",
    "bm25_weight",
    "tfidf_weight",
]
