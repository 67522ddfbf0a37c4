"""The ratings of MovieLens."""

from __future__ import annotations

from recfuse.compat.implicit._unavailable import Unavailable

__all__ = ["get_movielens"]

get_movielens = Unavailable("get_movielens", "Read the data from a file of yours.")
