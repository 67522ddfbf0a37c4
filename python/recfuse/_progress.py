"""Progress bars on standard error, by tqdm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["progress"]

T = TypeVar("T")


def progress(
    iterable: Iterable[T], *, description: str, enabled: bool, total: int | None = None
) -> Iterator[T]:
    """Iterate, with a bar on standard error if `enabled`; tqdm is imported only then."""
    if not enabled:
        return iter(iterable)
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError(
            "show_progress=True needs tqdm: pip install 'recfuse[progress]'"
        ) from error
    return iter(tqdm(iterable, desc=description, total=total))
