"""What FAISS sets for all indexes, or for one search."""

from __future__ import annotations

from typing import Any

from recfuse._inputs import as_int
from recfuse.backend import resolve_backend

__all__ = ["SearchParameters", "omp_get_max_threads", "omp_set_num_threads"]


class SearchParameters:
    """What one search may be told: nothing here, as there are no selectors."""

    def __init__(self, sel: Any = None) -> None:
        self.sel = sel


def omp_set_num_threads(num_threads: int) -> None:
    """Set how many threads searches use, those of the rest of recfuse, too.

    Parameters
    ----------
    num_threads : int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        If it is no such number.

    Examples
    --------
    >>> import recfuse.compat.faiss as faiss
    >>> before = faiss.omp_get_max_threads()
    >>> faiss.omp_set_num_threads(1)
    >>> faiss.omp_get_max_threads()
    1
    >>> faiss.omp_set_num_threads(before)
    """
    n = as_int(num_threads, "omp_set_num_threads: num_threads")
    if n < 1:
        raise ValueError(f"omp_set_num_threads: num_threads must be at least 1; got {n}")
    resolve_backend("cpu").ops.set_default_num_threads(n)


def omp_get_max_threads() -> int:
    """Return how many threads searches use."""
    return int(resolve_backend("cpu").ops.default_num_threads())
