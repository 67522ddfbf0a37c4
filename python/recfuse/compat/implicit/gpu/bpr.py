"""implicit.gpu.bpr: a class of its own, so that no model is taken for one of both."""

from __future__ import annotations

from recfuse.compat.implicit.cpu import bpr as _cpu_bpr

__all__ = ["BayesianPersonalizedRanking"]


class BayesianPersonalizedRanking(_cpu_bpr.BayesianPersonalizedRanking):
    """Raises NotImplementedError."""
