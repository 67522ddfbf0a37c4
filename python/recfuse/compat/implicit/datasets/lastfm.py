"""The plays of last.fm."""

from __future__ import annotations

from recfuse.compat.implicit._unavailable import Unavailable

__all__ = ["get_lastfm"]

get_lastfm = Unavailable("get_lastfm", "Read the data from a file of yours.")
