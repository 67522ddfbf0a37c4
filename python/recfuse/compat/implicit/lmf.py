"""implicit.lmf: see `cpu.lmf`."""

from __future__ import annotations

from recfuse.compat.implicit.cpu.lmf import LogisticMatrixFactorization

__all__ = ["LogisticMatrixFactorization"]
