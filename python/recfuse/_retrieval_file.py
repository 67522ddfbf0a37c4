"""A retrieval as JSON that names the arrays of its file, and back; docs/model-file.md has the keys.

Whatever a file says, what comes back names arrays of the right types and sizes. What is inside of
them is checked where it is used: rows of seen items, places of ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from recfuse._id_table import IdTable
from recfuse._retrieval import Modality, Part, Retrieval, Seen, Vectors
from recfuse.errors import FormatError

__all__ = ["described", "parsed"]

VERSION = 1
MOST_MODALITIES = 64
MOST_PARTS = 8
MOST_DIMENSIONS = 1 << 20
MOST_ROWS = 2**31 - 1
MOST_COPIES = 16  # of the file: what its vectors would take side by side
_METRICS = ("dot", "cosine")
_MISSING = ("renormalise", "zero")
_INTEGERS = ("<i4", "<i8")

Array = NDArray[Any]
Views = Mapping[str, Array]


def described(
    retrieval: Retrieval, arrays: dict[str, Any], names: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """Return a retrieval as JSON; what no name in `names`, by id(), has yet goes to `arrays`."""
    writer = _Writer(arrays, names or {})
    modalities = [
        {
            "name": modality.name,
            "items": writer.vectors(modality.items, f"items.{m}"),
            "users": writer.vectors(modality.users, f"users.{m}"),
            "similar": writer.vectors(modality.similar, f"similar.{m}"),
        }
        for m, modality in enumerate(retrieval.modalities)
    ]
    alike = retrieval.similar_weights
    return {
        "version": VERSION,
        "metric": retrieval.metric,
        "missing": retrieval.missing,
        "modalities": modalities,
        "weights": list(retrieval.weights),
        "user_weights": writer.array(retrieval.user_weights, "user_weights"),
        "similar_weights": None if alike is None else list(alike),
        "fallback": retrieval.fallback,
        "present": writer.array(retrieval.present, "present"),
        "user_ids": writer.ids(retrieval.user_ids, "user_ids"),
        "item_ids": writer.ids(retrieval.item_ids, "item_ids"),
        "seen": writer.seen(retrieval.seen, "seen"),
    }


class _Writer:
    """Names arrays: by what the file has already, or anew."""

    def __init__(self, arrays: dict[str, Any], names: Mapping[int, str]) -> None:
        self._arrays = arrays
        self._names = dict(names)

    def array(self, array: Any, name: str) -> str | None:
        if array is None:
            return None
        if id(array) not in self._names:
            self._names[id(array)] = f"retrieval.{name}"
            self._arrays[f"retrieval.{name}"] = array
        return self._names[id(array)]

    def vectors(self, vectors: Vectors | None, name: str) -> list[dict[str, Any]] | None:
        if vectors is None:
            return None
        return [self._part(part, f"{name}.{p}") for p, part in enumerate(vectors.parts)]

    def _part(self, part: Part, name: str) -> dict[str, Any]:
        if part.array is None:
            return {"constant": part.constant}
        entry: dict[str, Any] = {"array": self.array(part.array, name)}
        if part.columns is not None:
            entry["columns"] = part.columns
        if part.plus is not None:
            entry["plus"] = part.plus
        return entry

    def ids(self, table: IdTable | None, name: str) -> dict[str, Any] | None:
        if table is None:
            return None
        entry = {"kind": table.kind, "order": self.array(table.order, f"{name}.order")}
        known = self._names.get(id(table.source))
        if table.integers is not None:
            return {**entry, "integers": known or self.array(table.integers, name)}
        if known is not None:
            return {**entry, "utf8": f"{known}#utf8", "offsets": f"{known}#offsets"}
        utf8, offsets = table.utf8, table.offsets
        return {
            **entry,
            "utf8": self.array(utf8, f"{name}.utf8"),
            "offsets": self.array(offsets, f"{name}.offsets"),
        }

    def seen(self, seen: Seen | None, name: str) -> dict[str, Any] | None:
        if seen is None:
            return None
        known = self._names.get(id(seen.source))
        if known is not None:
            return {"indptr": f"{known}.indptr", "indices": f"{known}.indices"}
        return {
            "indptr": self.array(seen.indptr, f"{name}.indptr"),
            "indices": self.array(seen.indices, f"{name}.indices"),
        }


def parsed(description: Any, views: Views) -> Retrieval:
    """Return the retrieval that a file describes; `views` are its arrays by their names there."""
    try:
        return _Reader(description, views).retrieval()
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"must describe a retrieval; {type(error).__name__}: {error}") from error


class _Reader:
    """Every name, type, length and number of a description, held against the arrays."""

    def __init__(self, description: Any, views: Views) -> None:
        if not isinstance(description, dict):
            _fail("a retrieval to be an object", description)
        if description.get("version") != VERSION:
            _fail(f"a retrieval of version {VERSION}", description.get("version"))
        self._all, self._views = description, views

    def retrieval(self) -> Retrieval:
        listed = self._all["modalities"]
        if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_MODALITIES:
            _fail(f"1 to {MOST_MODALITIES} modalities", listed)
        modalities = tuple(self._modality(entry) for entry in listed)
        names = [modality.name for modality in modalities]
        if len(set(names)) < len(names):
            _fail("modalities of different names", names)
        n_items = len(modalities[0].items)
        n_users = None if modalities[0].users is None else len(modalities[0].users)
        for modality in modalities:
            _check_length(modality.items, n_items, modality.items.dim)
            _check_length(modality.likeness, n_items, modality.likeness.dim)
            if (modality.users is None) != (n_users is None):
                _fail("users in all modalities or in none", names)
            if modality.users is not None:
                _check_length(modality.users, n_users, modality.items.dim)
        described = sum(4 * n_items * modality.items.dim for modality in modalities)
        if described > MOST_COPIES * sum(view.nbytes for view in self._views.values()):
            _fail("items that are in the file", f"{described} bytes of them")
        n = len(modalities)
        return Retrieval(
            modalities,
            _one_of(self._all["metric"], _METRICS),
            _one_of(self._all["missing"], _MISSING),
            self._weights("weights", n),
            self._array("user_weights", ("<f8",), (n_users, n)),
            None if self._all["similar_weights"] is None else self._weights("similar_weights", n),
            self._fallback(n),
            self._array("present", ("u1", "?"), (n_items, n)),
            self._ids("user_ids", n_users),
            self._ids("item_ids", n_items),
            self._seen(n_users, n_items),
        )

    def _modality(self, entry: dict[str, Any]) -> Modality:
        if not isinstance(entry["name"], str):
            _fail("modalities that have names", entry["name"])
        items = self._vectors(entry["items"])
        if items is None:
            _fail("modalities that have items", entry)
        return Modality(
            entry["name"], items, self._vectors(entry["users"]), self._vectors(entry["similar"])
        )

    def _vectors(self, parts: Any) -> Vectors | None:
        if parts is None:
            return None
        if not isinstance(parts, list) or not 1 <= len(parts) <= MOST_PARTS:
            _fail(f"vectors of 1 to {MOST_PARTS} parts", parts)
        vectors = Vectors(tuple(self._part(part) for part in parts))
        n_rows = {len(part.array) for part in vectors.parts if part.array is not None}
        if len(n_rows) != 1 or max(n_rows) > MOST_ROWS:
            _fail("vectors of one number of rows", n_rows)
        if not 1 <= vectors.dim <= MOST_DIMENSIONS:
            _fail(f"vectors of 1 to {MOST_DIMENSIONS} columns", vectors.dim)
        return vectors

    def _part(self, part: dict[str, Any]) -> Part:
        if "constant" in part:
            return Part(constant=_number(part["constant"]))
        array = self._views[part["array"]]
        if array.dtype != "<f4" or array.ndim not in (1, 2):
            _fail("vectors of float32 in 1 or 2 dimensions", part)
        columns, plus = part.get("columns"), part.get("plus")
        if columns is not None and not (array.ndim == 2 and _is_index(columns, array.shape[1] + 1)):
            _fail("parts of as many columns as there are", part)
        return Part(array, columns, None if plus is None else _number(plus))

    def _weights(self, key: str, n: int) -> tuple[float, ...]:
        weights = self._all[key]
        if not isinstance(weights, list) or len(weights) != n:
            _fail(f"{n} {key}", weights)
        return tuple(_number(weight) for weight in weights)

    def _fallback(self, n: int) -> int | None:
        fallback = self._all["fallback"]
        if fallback is None:
            return None
        if not _is_index(fallback, n):
            _fail(f"a fallback in [0, {n})", fallback)
        return int(fallback)

    def _array(self, key: str, dtypes: tuple[str, ...], shape: tuple[Any, ...]) -> Array | None:
        name = self._all[key]
        return None if name is None else _checked(self._views[name], key, dtypes, shape)

    def _ids(self, key: str, n: int | None) -> IdTable | None:
        entry = self._all[key]
        if entry is None:
            return None
        order = None if entry["order"] is None else self._views[entry["order"]]
        if order is not None:
            _checked(order, key, _INTEGERS, (n,))
        if entry["kind"] == "integer":
            integers = self._views[entry["integers"]]
            if integers.dtype.kind not in "iu":
                _fail(f"{key} of integers", integers.dtype)
            return IdTable("integer", order, _checked(integers, key, (integers.dtype.str,), (n,)))
        utf8, offsets = self._views[entry["utf8"]], self._views[entry["offsets"]]
        _checked(utf8, key, ("u1",), (len(utf8),))
        _checked(offsets, key, ("<i8",), (None if n is None else n + 1,))
        kind = _one_of(entry["kind"], ("string", "label"))
        return IdTable(kind, order, utf8=utf8, offsets=offsets)

    def _seen(self, n_users: int | None, n_items: int) -> Seen | None:
        entry = self._all["seen"]
        if entry is None:
            return None
        n = None if n_users is None else n_users + 1
        indptr = _checked(self._views[entry["indptr"]], "seen", _INTEGERS, (n,))
        indices = self._views[entry["indices"]]
        return Seen(indptr, _checked(indices, "seen", _INTEGERS, (len(indices),)), n_items)


def _fail(rule: str, got: Any) -> NoReturn:
    raise FormatError(f"must have {rule}; got {got!r:.99}")


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        _fail("finite numbers", value)
    return float(value)


def _is_index(value: Any, end: int) -> bool:
    return type(value) is int and 0 <= value < end


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        _fail(f"one of {', '.join(known)}", value)
    return str(value)


def _check_length(vectors: Vectors, n: int | None, dim: int) -> None:
    if (len(vectors), vectors.dim) != (n, dim):
        _fail(f"vectors of shape ({n}, {dim})", (len(vectors), vectors.dim))


def _checked(array: Array, key: str, dtypes: tuple[str, ...], shape: tuple[Any, ...]) -> Array:
    if array.dtype not in [np.dtype(dtype) for dtype in dtypes] or array.shape != shape:
        _fail(f"{key} of shape {shape} and type {' or '.join(dtypes)}", (array.shape, array.dtype))
    return array
