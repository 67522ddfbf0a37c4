"""Titles of the tables of an evaluation."""

from __future__ import annotations

from recfuse._table import aligned

__all__ = ["aligned", "split_title"]


def split_title(name: str | None) -> str:
    """Return the line that names the split, also where nobody has named it."""
    return f"split: {name or 'not named (pass split=...)'}"
