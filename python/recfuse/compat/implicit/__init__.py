"""implicit 0.7.3's names, arguments and results over recfuse's kernels.

``import recfuse.compat.implicit as implicit``, or `recfuse.compat.patch`, runs programs written for
implicit. ``docs/compat.md`` says what is covered and what is done otherwise, and why.
"""

from __future__ import annotations

from recfuse.compat.implicit import als, approximate_als, bpr, lmf, nearest_neighbours

__version__ = "0.7.3"  # of the library whose interface this is

__all__ = ["__version__", "als", "approximate_als", "bpr", "lmf", "nearest_neighbours"]
