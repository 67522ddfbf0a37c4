"""Ids of users or items as JSON has them: rows of ids, and ids of rows, remembered."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recfuse._id_table import IdTable
from recfuse._label_codec import label_from_text, label_to_text

__all__ = ["Label", "Labels"]

Label = int | str
_REMEMBERED = 1 << 17
_SEARCHED = 100_000  # ids


class Labels:
    """Ids both ways. Where a model knows none, rows are ids.

    An id that is neither number nor text, such as a date, goes by the JSON text that model files
    have of it.
    """

    def __init__(self, table: IdTable | None, n: int) -> None:
        self._table = table
        self.n = n
        # A search in a table takes tens of microseconds of Python.
        self.row = functools.lru_cache(_REMEMBERED, typed=True)(self._row)
        self.label = functools.lru_cache(_REMEMBERED)(self._label)
        self._texts: list[tuple[str, Label, str]] | None = None

    def _row(self, label: Label) -> int | None:
        """Return the row of an id, None for an unknown one."""
        if self._table is None:
            return label if isinstance(label, int) and 0 <= label < self.n else None
        (row,) = self._table.find([label])
        if row is None and self._table.kind == "label" and isinstance(label, str):
            try:
                (row,) = self._table.find([label_from_text(label)])
            except (TypeError, ValueError):
                return None
        return row

    def _label(self, row: int) -> Label:
        if self._table is None:
            return row
        label = self._table.labels(np.array([row]))[0]
        return label if type(label) in (int, str) else label_to_text(label, "ids")

    def rows(self, labels: list[Label], name: str) -> NDArray[np.int64]:
        """Return the rows of ids, ascending and once each; KeyError for an unknown one."""
        rows = [self.row(label) for label in labels]
        if None in rows:
            raise KeyError(f"{name} must be known; got {labels[rows.index(None)]!r:.99}")
        return np.unique(np.array(rows, np.int64))

    def matching(self, text: str, most: int, titles: Mapping[str, str]) -> list[tuple[Label, str]]:
        """Return the first ids, with their titles, of which title or id has a text in it."""
        if self._texts is None:
            labels = [self._label(row) for row in range(min(self.n, _SEARCHED))]
            named = [(label, titles.get(str(label), str(label))) for label in labels]
            self._texts = [(f"{title} {label}".casefold(), label, title) for label, title in named]
        wanted = text.casefold()
        found = ((label, title) for searched, label, title in self._texts if wanted in searched)
        return list(itertools.islice(found, most))
