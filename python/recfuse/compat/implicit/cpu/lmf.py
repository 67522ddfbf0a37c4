"""Logistic matrix factorisation is not among recfuse's models."""

from __future__ import annotations

from recfuse.compat.implicit._unavailable import UnavailableModel

__all__ = ["LogisticMatrixFactorization"]


class LogisticMatrixFactorization(UnavailableModel):
    """Raises NotImplementedError."""

    _hint = "Its nearest relative here is AlternatingLeastSquares."
