"""What follows a model, as one more ONNX graph: pooling and length 1 where the session runs.

`_pooling.py` does the same in NumPy, for results that come to the host.
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["tail_model"]

_FLOAT, _INT64, _BOOL = 1, 7, 9  # as ONNX counts types
_ELEMENTS = {"f2": 10, "f4": _FLOAT, "f8": 11}
_IR_VERSION, _OPSET = 8, 17


def tail_model(code: str, rank: int, pooling: str | None, *, normalise: bool) -> bytes:
    """Return the model from ``hidden`` (and ``mask``, with `pooling`) to ``vectors``, in float32.

    `code` and `rank` are those of ``hidden``: (n, tokens, dim) with `pooling`, (n, ...) without.
    ``mask`` is boolean, (n, tokens).
    """
    nodes = [_node("Cast", "hidden", "wide", to=_FLOAT)]
    inputs = [_value("hidden", _ELEMENTS[code], rank)]
    constants = [_constant("zero", [], _FLOAT, b"\0\0\0\0"), _integers("columns", [1])]
    if pooling is None:
        constants.append(_integers("flat", [0, -1]))
        nodes.append(_node("Reshape", "wide", "flat", "pooled"))
    else:
        inputs.append(_value("mask", _BOOL, 2))
        constants.append(_integers("last", [2]))
        nodes.append(_node("Unsqueeze", "mask", "last", "of_tokens"))
        nodes += _POOLINGS[pooling]()
    if normalise:
        nodes += [
            # In float64: the square of 1e20 is no float32.
            _node("Cast", "pooled", "exact", to=_ELEMENTS["f8"]),
            _node("ReduceSumSquare", "exact", "squares", axes=[1], keepdims=1),
            _node("Sqrt", "squares", "norms"),
            _node("Div", "exact", "norms", "divided"),
            _node("Cast", "norms", "known", to=_BOOL),
            _node("Where", "known", "divided", "exact", "unit"),
            _node("Cast", "unit", "vectors", to=_FLOAT),
        ]
    else:
        nodes.append(_node("Identity", "pooled", "vectors"))
    graph = b"".join(
        [
            *(_field(1, node) for node in nodes),
            _field(2, b"tail"),
            *(_field(5, constant) for constant in constants),
            *(_field(11, value) for value in inputs),
            _field(12, _value("vectors", _FLOAT, 2)),
        ]
    )
    opset = _field(2, _OPSET)
    return _field(1, _IR_VERSION) + _field(7, graph) + _field(8, opset)


def _mean() -> list[bytes]:
    return [
        # Where instead of a product with the mask: models may give NaN at padding.
        _node("Where", "of_tokens", "wide", "zero", "kept"),
        _node("ReduceSum", "kept", "columns", "total", keepdims=0),
        *_counted(),
        _node("Max", "count", "one", "divisor"),
        _node("Div", "total", "divisor", "pooled"),
    ]


def _max() -> list[bytes]:
    return [
        _node("Constant", "lowest", value_float=float("-inf")),
        _node("Where", "of_tokens", "wide", "lowest", "kept"),
        _node("ReduceMax", "kept", "highest", axes=[1], keepdims=0),
        *_counted(),
        *_zero_without_tokens("highest"),
    ]


def _cls() -> list[bytes]:
    return [
        # The first token that is no padding: some tokenizers pad on the left.
        _node("Cast", "mask", "numbers", to=_INT64),
        _node("ArgMax", "numbers", "place", axis=1, keepdims=1),
        _node("Unsqueeze", "place", "last", "place_of"),
        _node("Shape", "wide", "shape"),
        _node("Constant", "width_at", value_ints=[2]),
        _node("Gather", "shape", "width_at", "width"),
        _node("Constant", "ones", value_ints=[1, 1]),
        _node("Concat", "ones", "width", "row_shape", axis=0),
        _node("Expand", "place_of", "row_shape", "places"),
        _node("GatherElements", "wide", "places", "first_token", axis=1),
        _node("Squeeze", "first_token", "columns", "first"),
        *_counted(),
        *_zero_without_tokens("first"),
    ]


_POOLINGS = {"mean": _mean, "max": _max, "cls": _cls}


def _counted() -> list[bytes]:
    return [
        _node("Constant", "one", value_float=1.0),
        _node("Cast", "mask", "flags", to=_FLOAT),
        _node("ReduceSum", "flags", "columns", "count", keepdims=1),
    ]


def _zero_without_tokens(name: str) -> list[bytes]:
    return [
        _node("Cast", "count", "any", to=_BOOL),
        _node("Where", "any", name, "zero", "pooled"),
    ]


# Protocol buffers: a field is its number and kind, then a number, or a length and so many bytes.


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _node(op: str, *names: str, **attributes: Any) -> bytes:
    """Return a node; the last name is that of its output."""
    return b"".join(
        [
            *(_field(1, name.encode()) for name in names[:-1]),
            _field(2, names[-1].encode()),
            _field(4, op.encode()),
            *(_field(5, _attribute(name, value)) for name, value in attributes.items()),
        ]
    )


def _attribute(name: str, value: Any) -> bytes:
    head = _field(1, name.encode())
    if isinstance(value, float):
        return head + _varint(2 << 3 | 5) + struct.pack("<f", value) + _field(20, 1)
    if isinstance(value, int):
        return head + _field(3, value) + _field(20, 2)
    return head + b"".join(_field(8, number) for number in value) + _field(20, 7)


def _value(name: str, element: int, rank: int) -> bytes:
    """Return an input or output, with free axes."""
    axes = b"".join(_field(1, _field(2, f"{name}_{axis}".encode())) for axis in range(rank))
    kind = _field(1, element) + _field(2, axes)
    return _field(1, name.encode()) + _field(2, _field(1, kind))


def _constant(name: str, shape: list[int], element: int, raw: bytes) -> bytes:
    dims = b"".join(_field(1, axis) for axis in shape)
    return dims + _field(2, element) + _field(8, name.encode()) + _field(9, raw)


def _integers(name: str, values: list[int]) -> bytes:
    raw = b"".join(value.to_bytes(8, "little", signed=True) for value in values)
    return _constant(name, [len(values)], _INT64, raw)
