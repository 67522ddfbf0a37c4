"""Arrays of a file by name: views that are looked at when they are asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.errors import FormatError

__all__ = ["StoredArrays"]

Array = NDArray[Any]


class StoredArrays(Mapping[str, Array]):
    """The arrays of a file, strings in one piece; a value is checked at its first use.

    What is checked here costs a look at every byte: that booleans are 0 or 1, and that strings are
    UTF-8 of rising offsets. Shapes, types and places were compared with the file before.
    """

    def __init__(self, views: Mapping[str, Array]) -> None:
        self._views = dict(views)
        self._names = list(dict.fromkeys(_base_name(name, views) for name in views))
        self._checked: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._checked:
            if name in self._views and "#" not in name:
                self._checked[name] = _with_booleans(self._views[name], name)
            else:
                self._checked[name] = _decoded(*self.strings(name), name)
        return self._checked[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def views(self) -> Mapping[str, Array]:
        """What the file holds, by the names there: of strings two arrays."""
        return self._views

    def strings(self, name: str) -> tuple[Array, Array]:
        """Return the UTF-8 bytes and the offsets of an array of strings, as they are."""
        return self._views[f"{name}#utf8"], self._views[f"{name}#offsets"]


def _base_name(name: str, views: Mapping[str, Array]) -> str:
    base, mark, part = name.partition("#")
    if not mark:
        return name
    if part == "offsets" and f"{base}#utf8" in views:
        return base
    if part != "utf8":
        raise FormatError(f"must have known parts of arrays; got {name!r}")
    blob, offsets = views[name], views.get(f"{base}#offsets")
    if offsets is None or offsets.dtype != "<i8" or offsets.ndim != 1 or blob.dtype != "u1":
        raise FormatError(f"must have int64 offsets for the strings {base!r}; got others")
    if blob.ndim != 1 or base in views:
        raise FormatError(f"must have one array of a name; got {base!r} in two ways")
    return base


def _with_booleans(view: Array, name: str) -> Array:
    if view.dtype == np.bool_ and view.size and view.view(np.uint8).max() > 1:
        raise FormatError(f"must have booleans of 0 and 1; got others in {name!r}")
    return view


def _decoded(blob: Array, offsets: Array, name: str) -> Array:
    if (
        not len(offsets)
        or offsets[0] != 0
        or offsets[-1] != len(blob)
        or (offsets[1:] < offsets[:-1]).any()
    ):
        raise FormatError(f"must have rising offsets for the strings {name!r}; got others")
    text, at = blob.tobytes(), offsets.tolist()
    try:
        strings = [text[a:b].decode("utf-8") for a, b in itertools.pairwise(at)]
    except UnicodeDecodeError as error:
        raise FormatError(f"must have UTF-8 strings in {name!r}; got other bytes") from error
    return np.fromiter(strings, object, len(strings))
