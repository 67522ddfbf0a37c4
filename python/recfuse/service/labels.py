"""Ids of users or items as JSON has them: rows of ids, and ids of rows, remembered."""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse._id_table import IdTable
from recfuse._label_codec import label_from_text, label_to_text

__all__ = ["Label", "Labels"]

Label = int | str
_REMEMBERED = 1 << 17
_TOGETHER = 1 << 16  # ids whose texts are one: a search for a text in one takes a millisecond
_BETWEEN = b"\xff"  # no byte of UTF-8


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
        self._texts: dict[int, tuple[bytes, list[int]]] = {}

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
        return _as_json(self._table.labels(np.array([row]))[0])

    def rows(self, labels: list[Label], name: str) -> NDArray[np.int64]:
        """Return the rows of ids, ascending and once each; KeyError for an unknown one."""
        rows = [self.row(label) for label in labels]
        if None in rows:
            raise KeyError(f"{name} must be known; got {labels[rows.index(None)]!r:.99}")
        return np.unique(np.array(rows, np.int64))

    def matching(self, text: str, most: int, titles: Mapping[str, str]) -> list[tuple[Label, str]]:
        """Return the first ids, with their titles, of which title or id has a text in it."""
        wanted = text.casefold().encode("utf-8", "surrogatepass")
        found = []
        for row in itertools.islice(self._rows_with(wanted, titles), most):
            label = self._label(row)
            found.append((label, titles.get(str(label), str(label))))
        return found

    def _rows_with(self, wanted: bytes, titles: Mapping[str, str]) -> Iterator[int]:
        """Yield rows whose title or id has a text in it; texts are made when they are reached."""
        for first in range(0, self.n, _TOGETHER):
            if first not in self._texts:
                self._texts[first] = self._folded(first, titles)
            texts, starts = self._texts[first]
            at = texts.find(wanted)
            while at >= 0:
                place = bisect_right(starts, at)
                yield first + place - 1
                at = texts.find(wanted, starts[place]) if place < len(starts) else -1

    def _folded(self, first: int, titles: Mapping[str, str]) -> tuple[bytes, list[int]]:
        """Return the texts of rows from `first` on as one, and where each begins."""
        names = self._names(first, min(self.n, first + _TOGETHER))
        if titles:
            names = [f"{titles.get(name, name)} {name}" for name in names]
        parts = [name.casefold().encode() for name in names]
        sizes = (len(part) + len(_BETWEEN) for part in parts)
        starts = list(itertools.accumulate(sizes, initial=0))[:-1]
        return _BETWEEN.join(parts), starts

    def _names(self, first: int, end: int) -> list[str]:
        """Return ids as texts; of a table of integers or strings without a search for each."""
        if self._table is None:
            return list(map(str, range(first, end)))
        if self._table.kind == "label":  # of several types
            return [str(_as_json(label)) for label in self._table.labels(np.arange(first, end))]
        return self._table.texts(first, end)


def _as_json(label: Any) -> Label:
    return label if type(label) in (int, str) else label_to_text(label, "ids")
