"""Ids that are neither numbers nor text, as text and back: data of known types, never code."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

__all__ = ["label_from_text", "label_to_text"]

_MAX_DEPTH = 8  # of tuples in tuples

# JSON keeps these; bool is asked for by type, because it is an int as well.
_PLAIN = (str, bool, int, type(None))
# Type -> its text, and what reads that.
_TEXTS: dict[type, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    bytes: (bytes.hex, bytes.fromhex),
    uuid.UUID: (str, uuid.UUID),
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    Decimal: (str, Decimal),
    float: (float.hex, float.fromhex),
}
_NAMES = {kind.__name__: kind for kind in _TEXTS}


def label_to_text(label: Any, name: str) -> str:
    """Return an id as JSON; TypeError for a type that no file may hold."""
    return json.dumps(_encode(label, name, _MAX_DEPTH))


def label_from_text(text: str) -> Any:
    """Return the id of `label_to_text`; ValueError or TypeError for another text."""
    try:
        return _decode(json.loads(text), _MAX_DEPTH)
    except (RecursionError, ArithmeticError) as error:  # so deep; no Decimal
        raise ValueError(f"an id must be of a known type; got {text!r:.99}") from error


def _encode(label: Any, name: str, depth: int) -> Any:
    kind = type(label)
    if kind in _PLAIN:
        return label
    if kind in _TEXTS:
        return {kind.__name__: _TEXTS[kind][0](label)}
    if kind in (tuple, frozenset) and depth > 0:
        parts = [_encode(part, name, depth - 1) for part in label]
        # The order of a set is that of this process; its texts have one.
        return {kind.__name__: sorted(parts, key=json.dumps) if kind is frozenset else parts}
    raise TypeError(
        f"save: {name} must hold ids that a file can hold: integers, str, bytes, float, Decimal, "
        f"date, datetime, UUID, or tuples and frozensets of them; got {kind.__name__}"
    )


def _decode(value: Any, depth: int) -> Any:
    if type(value) in _PLAIN:
        return value
    if not isinstance(value, dict) or len(value) != 1 or depth < 0:
        raise ValueError(f"an id must be of a known type; got {value!r:.99}")
    (kind, content), *_ = value.items()
    if kind in ("tuple", "frozenset") and isinstance(content, list):
        parts = [_decode(part, depth - 1) for part in content]
        return tuple(parts) if kind == "tuple" else frozenset(parts)
    if kind in _NAMES and isinstance(content, str):
        return _TEXTS[_NAMES[kind]][1](content)
    raise ValueError(f"an id must be of a known type; got {kind!r:.99}")
