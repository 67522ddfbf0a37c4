"""Ids of users or items, both ways, where they lie in a file: strings, integers, others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse._label_codec import label_from_text, label_to_text
from recfuse.errors import FormatError

__all__ = ["IdTable"]

Array = NDArray[Any]


@dataclass(frozen=True)
class IdTable:
    """Ids by row, and rows by id: a search in the order of the ids, which a file may have too.

    Attributes
    ----------
    kind : {'integer', 'string', 'label'}
        A label is anything else that a model file can hold, as the text of `label_to_text`.
    order : ndarray of shape (n,), int64, or None
        The rows in ascending order of integers or UTF-8 bytes; None where that is how they lie.
    integers : ndarray of shape (n,), or None
    utf8, offsets : ndarray of shape (n_bytes,), uint8, and (n + 1,), int64, or None
    """

    kind: str
    order: Array | None
    integers: Array | None = None
    utf8: Array | None = None
    offsets: Array | None = None
    source: Any = None  # the array of ids of which this is the table

    @classmethod
    def of(cls, labels: Any, name: str) -> IdTable:
        """Make the table of an array of ids; TypeError for ids that no file can hold."""
        array = np.asarray(labels)
        if array.ndim != 1:
            raise ValueError(f"{name} must have 1 dimension; got shape {array.shape}")
        if array.dtype.kind in "iu":
            return cls("integer", _order(array), array, source=labels)
        texts = array.tolist()
        kind = "string" if all(type(text) is str for text in texts) else "label"
        if kind == "label":
            texts = [label_to_text(label, name) for label in texts]
        parts = [text.encode() for text in texts]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        utf8 = np.frombuffer(b"".join(parts), np.uint8)
        return cls(kind, _order_of_texts(parts), utf8=utf8, offsets=offsets, source=labels)

    def __len__(self) -> int:
        if self.integers is not None:
            return len(self.integers)
        assert self.offsets is not None
        return len(self.offsets) - 1

    def check(self) -> None:
        """Read every id, and find it; FormatError for one that is not there, or is twice."""
        labels = self.labels(np.arange(len(self))).tolist()
        for row, found in enumerate(self.find(labels)):
            if found != row:
                raise FormatError(f"ids must be in order and differ; got {labels[row]!r:.99}")

    def find(self, ids: Iterable[Any]) -> list[int | None]:
        """Return the row of every id, None for those that are unknown."""
        return [self._row_of(label) for label in ids]

    def labels(self, rows: NDArray[np.integer[Any]]) -> Array:
        """Return the ids of rows of any shape, as objects; None for the row -1."""
        known = {row: self._label(row) for row in np.unique(rows).tolist() if row >= 0}
        out = np.empty(rows.shape, object)
        out.ravel()[:] = [known.get(row) for row in rows.ravel().tolist()]
        return out

    def texts(self, first: int, end: int) -> list[str]:
        """Return the ids of rows in [first, end) as texts: those of a label, as the file has it."""
        return [
            key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
            for key in map(self._key, range(first, end))
        ]

    def _row_of(self, label: Any) -> int | None:
        wanted: Any = self._wanted(label)
        if wanted is None:
            return None
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._key(self._at(middle)) < wanted:
                low = middle + 1
            else:
                high = middle
        if low == len(self):
            return None
        row = self._at(low)
        return row if self._key(row) == wanted else None

    def _wanted(self, label: Any) -> Any:
        """Return an id as the table has it; None for one of another type."""
        if isinstance(label, np.generic):
            label = label.item()
        if self.kind == "integer":
            return label if type(label) is int else None
        try:
            if self.kind == "label":
                label = label_to_text(label, "ids")
            return label.encode() if isinstance(label, str) else None
        except (TypeError, UnicodeEncodeError):
            return None

    def _at(self, place: int) -> int:
        if self.order is None:
            return place
        row = int(self.order[place])
        if not 0 <= row < len(self):
            raise FormatError(f"order of ids must have rows in [0, {len(self)}); got {row}")
        return row

    def _key(self, row: int) -> Any:
        if self.integers is not None:
            return int(self.integers[row])
        assert self.utf8 is not None and self.offsets is not None
        begin, end = int(self.offsets[row]), int(self.offsets[row + 1])
        if not 0 <= begin <= end <= len(self.utf8):
            raise FormatError(f"ids must have rising offsets; got {begin} and {end}")
        return self.utf8[begin:end].tobytes()

    def _label(self, row: int) -> Any:
        key = self._key(row)
        if self.kind == "integer":
            return key
        try:
            text = key.decode("utf-8")
            return text if self.kind == "string" else label_from_text(text)
        except (ValueError, TypeError) as error:
            raise FormatError(f"ids must be text of a known type; got {key!r:.99}") from error


def _order(integers: Array) -> Array | None:
    if (integers[1:] >= integers[:-1]).all():
        return None
    return np.argsort(integers, kind="stable")


def _order_of_texts(texts: list[bytes]) -> Array | None:
    order = sorted(range(len(texts)), key=texts.__getitem__)
    rows = np.array(order, np.int64)
    return None if np.array_equal(rows, np.arange(len(rows))) else rows
