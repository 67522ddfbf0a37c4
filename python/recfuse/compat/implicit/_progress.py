"""implicit shows a bar unless told otherwise; here it does where tqdm is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from typing import TypeVar

from recfuse._progress import progress

__all__ = ["shown"]

T = TypeVar("T")


def shown(iterable: Iterable[T], *, description: str, enabled: bool) -> Iterator[T]:
    """Iterate, with a bar if that is wanted and tqdm is there: a default must not need an extra."""
    there = enabled and importlib.util.find_spec("tqdm") is not None
    return progress(iterable, description=description, enabled=there)
