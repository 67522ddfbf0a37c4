"""The likes of Sketchfab."""

from __future__ import annotations

from recfuse.compat.implicit._unavailable import Unavailable

__all__ = ["get_sketchfab"]

get_sketchfab = Unavailable("get_sketchfab", "Read the data from a file of yours.")
