"""The plays of the Million Song Dataset."""

from __future__ import annotations

from recfuse.compat.implicit._unavailable import Unavailable

__all__ = ["get_msd_taste_profile"]

get_msd_taste_profile = Unavailable("get_msd_taste_profile", "Read the data from a file of yours.")
