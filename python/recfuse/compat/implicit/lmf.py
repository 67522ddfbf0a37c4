"""Logistic matrix factorisation is not among recfuse's models."""

from __future__ import annotations

from recfuse.compat.implicit._unavailable import Unavailable

__all__ = ["LogisticMatrixFactorization"]

LogisticMatrixFactorization = Unavailable(
    "LogisticMatrixFactorization", "Its nearest relative here is AlternatingLeastSquares."
)
