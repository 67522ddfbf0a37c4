"""Approximate indexes are not here: the exact search of AlternatingLeastSquares stands for them."""

from __future__ import annotations

from recfuse.compat.implicit._unavailable import UnavailableModel

__all__ = [
    "AnnoyAlternatingLeastSquares",
    "FaissAlternatingLeastSquares",
    "NMSLibAlternatingLeastSquares",
]


class _Approximate(UnavailableModel):
    _hint = "The searches of AlternatingLeastSquares are exact and fast here: use that."


class AnnoyAlternatingLeastSquares(_Approximate):
    """Raises NotImplementedError."""


class FaissAlternatingLeastSquares(_Approximate):
    """Raises NotImplementedError."""


class NMSLibAlternatingLeastSquares(_Approximate):
    """Raises NotImplementedError."""
