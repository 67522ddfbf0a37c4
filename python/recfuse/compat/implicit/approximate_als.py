"""Approximate indexes are not here: the exact search of AlternatingLeastSquares stands for them."""

from __future__ import annotations

from recfuse.compat.implicit._unavailable import Unavailable

__all__ = [
    "AnnoyAlternatingLeastSquares",
    "FaissAlternatingLeastSquares",
    "NMSLibAlternatingLeastSquares",
]

_HINT = "The searches of AlternatingLeastSquares are exact and fast here: use that."

AnnoyAlternatingLeastSquares = Unavailable("AnnoyAlternatingLeastSquares", _HINT)
FaissAlternatingLeastSquares = Unavailable("FaissAlternatingLeastSquares", _HINT)
NMSLibAlternatingLeastSquares = Unavailable("NMSLibAlternatingLeastSquares", _HINT)
