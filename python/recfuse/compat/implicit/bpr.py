"""Bayesian personalised ranking is not among recfuse's models."""

from __future__ import annotations

from recfuse.compat.implicit._unavailable import Unavailable

__all__ = ["BayesianPersonalizedRanking"]

BayesianPersonalizedRanking = Unavailable(
    "BayesianPersonalizedRanking", "Its nearest relative here is AlternatingLeastSquares."
)
