"""The votes of reddit."""

from __future__ import annotations

from recfuse.compat.implicit._unavailable import Unavailable

__all__ = ["get_reddit"]

get_reddit = Unavailable("get_reddit", "Read the data from a file of yours.")
