"""implicit.bpr: see `cpu.bpr`."""

from __future__ import annotations

from recfuse.compat.implicit.cpu.bpr import BayesianPersonalizedRanking

__all__ = ["BayesianPersonalizedRanking"]
