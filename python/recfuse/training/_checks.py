"""Checks of arguments that batches and augmentation share."""

from __future__ import annotations

from typing import Any

from recfuse._inputs import as_int


def at_least(least: int, value: Any, name: str) -> int:
    """Return an integer of at least `least`."""
    number = as_int(value, name)
    if number < least:
        raise ValueError(f"{name} must be at least {least}; got {number}")
    return number
