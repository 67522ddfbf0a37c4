"""What a model takes, and batches of it made from arrays or texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.serving._tokens import Tokens

__all__ = ["ArrayBatches", "Batch", "TensorSpec", "TextBatches", "static_rows", "tensor_specs"]

MASK = "attention_mask"

_DTYPES = {
    "tensor(float)": "f4",
    "tensor(double)": "f8",
    "tensor(float16)": "f2",
    "tensor(bool)": "?",
    "tensor(string)": "O",
    **{
        f"tensor({sign}int{8 * n})": f"{sign or 'i'}{n}" for sign in ("", "u") for n in (1, 2, 4, 8)
    },
}


class TensorSpec(NamedTuple):
    """Name, dtype and shape of an input or output; None is an axis of any length."""

    name: str
    dtype: np.dtype[Any] | None  # None: nothing that NumPy can hold
    shape: tuple[int | None, ...] | None  # None: of any rank
    type: str = "tensor(float)"  # as ONNX Runtime names it

    def __str__(self) -> str:
        axes = ", ".join("any" if axis is None else str(axis) for axis in self.shape or ())
        return f"({axes})"


class Batch(NamedTuple):
    """Rows of the inputs and what the model is fed for them."""

    rows: NDArray[np.intp] | slice
    n_rows: int  # the feeds may have more: those fill up a static batch axis
    feeds: dict[str, NDArray[Any]]
    mask: NDArray[np.bool_] | None  # (n_rows, tokens): which tokens are no padding


def tensor_specs(arguments: Sequence[Any]) -> list[TensorSpec]:
    """Describe the inputs or outputs of a session."""
    specs = []
    for argument in arguments:
        code = _DTYPES.get(argument.type)
        # ONNX Runtime gives the shape [] to scalars and to tensors of unknown rank alike.
        shape = tuple(n if isinstance(n, int) and n >= 0 else None for n in argument.shape)
        dtype = np.dtype(code) if code else None
        specs.append(TensorSpec(argument.name, dtype, shape or None, argument.type))
    return specs


def static_rows(specs: Sequence[TensorSpec]) -> int | None:
    """Return the batch size that is written into the model, if one is."""
    return next((spec.shape[0] for spec in specs if spec.shape and spec.shape[0]), None)


class ArrayBatches:
    """Slices of the caller's arrays, converted batch by batch."""

    def __init__(
        self, inputs: Any, specs: Sequence[TensorSpec], batch_size: int, *, masked: bool
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._arrays = self._named(inputs, (MASK,) if masked else ())
        first = next(iter(self._arrays))
        self.n_rows = len(self._arrays[first])
        for name, array in self._arrays.items():
            if len(array) != self.n_rows:
                raise ValueError(
                    f"encode: inputs[{name!r}] must have {self.n_rows} rows like "
                    f"inputs[{first!r}]; got {len(array)}"
                )
        self._mask = self._arrays.get(MASK) if masked else None
        self._static = static_rows(specs)
        self._size = self._static or batch_size

    def __len__(self) -> int:
        return -(-self.n_rows // self._size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.n_rows, self._size):
            rows = slice(start, min(start + self._size, self.n_rows))
            n_rows = rows.stop - start
            feeds = {name: self._rows(name, self._arrays[name][rows]) for name in self._specs}
            mask = None if self._mask is None else self._mask[rows] != 0
            yield Batch(rows, n_rows, _filled(feeds, n_rows, self._static), mask)

    def probe(self) -> Batch:
        """Return one row of zeros in the shape of the inputs, to learn the shape of the output."""
        feeds = {}
        for name, spec in self._specs.items():
            shape = (self._static or 1, *self._arrays[name].shape[1:])
            feeds[name] = np.full(shape, "" if spec.dtype == object else 0, dtype=spec.dtype)
        return Batch(slice(0, 1), 1, feeds, None)

    def contents(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Name and array of everything that decides the result."""
        yield from sorted(self._arrays.items())

    def _named(self, inputs: Any, optional: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        names = list(self._specs)
        if not isinstance(inputs, Mapping):
            if len(names) > 1:
                kind = type(inputs).__name__
                raise ValueError(
                    f"encode: inputs must be a mapping with the names {names}; got one {kind}"
                )
            return {names[0]: self._checked(inputs, names[0], "inputs")}
        missing = [name for name in names if name not in inputs]
        unknown = [name for name in inputs if name not in (*names, *optional)]
        if missing or unknown:
            raise ValueError(f"encode: inputs must have the names {names}; got {list(inputs)}")
        return {name: self._checked(inputs[name], name, f"inputs[{name!r}]") for name in inputs}

    def _checked(self, value: Any, name: str, label: str) -> NDArray[Any]:
        # A mask that only pooling reads has no specification in the model.
        spec = self._specs.get(name, TensorSpec(name, np.dtype("f4"), (None, None)))
        array = _as_array(value, label)
        if array.ndim == 0:
            raise ValueError(f"encode: {label} must have one row per item; got a scalar")
        if spec.shape is not None:
            if array.ndim != len(spec.shape):
                raise ValueError(
                    f"encode: {label} must have {len(spec.shape)} dimensions {spec}; "
                    f"got shape {array.shape}"
                )
            axes = zip(spec.shape[1:], array.shape[1:], strict=True)
            if any(wanted is not None and wanted != got for wanted, got in axes):
                raise ValueError(f"encode: {label} must have shape {spec}; got {array.shape}")
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "O":
            if array.dtype.kind not in "OUT" or not all(isinstance(x, str) for x in array.flat):
                raise TypeError(f"encode: {label} must hold strings; got dtype {array.dtype}")
        elif array.dtype.kind not in "fiub" or not np.can_cast(array.dtype, dtype, "same_kind"):
            raise TypeError(
                f"encode: {label} must be convertible to {dtype} without loss of kind; "
                f"got dtype {array.dtype}"
            )
        return array

    def _rows(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        dtype = self._specs[name].dtype
        assert dtype is not None
        if dtype.kind in "iu" and len(rows) and not np.can_cast(rows.dtype, dtype, "safe"):
            limits = np.iinfo(dtype)
            low, high = int(rows.min(initial=0)), int(rows.max(initial=0))
            if low < limits.min or high > limits.max:
                value = low if low < limits.min else high
                raise ValueError(f"encode: inputs[{name!r}] must fit {dtype}; got {value}")
        with np.errstate(over="ignore"):  # what overflows is caught in the output
            return np.require(rows, dtype, ["C", "A"])


class TextBatches:
    """Texts as padded tokens, longest first: batches pad little and the first needs most memory.

    With `in_order`, every batch is a slice of the texts instead.
    """

    def __init__(
        self,
        texts: Any,
        tokens: Tokens,
        specs: Sequence[TensorSpec],
        batch_size: int,
        *,
        in_order: bool = False,
    ) -> None:
        self._texts = _as_texts(texts)
        self._tokens = tokens
        self._specs = specs
        self._static = static_rows(specs)
        self.n_rows = len(self._texts)
        self._encoded = tokens.encode(self._texts)
        lengths = self._encoded.lengths
        order = np.arange(len(lengths)) if in_order else np.argsort(-lengths, kind="stable")
        # Without a mask the model sees padding as text, so only equal lengths share a batch.
        masked = tokens.static_length is not None or any(spec.name == MASK for spec in specs)
        size = self._static or batch_size
        bounds = [0, len(order)] if masked else _changes(lengths[order])
        self._batches = [
            order[start : min(start + size, stop)]
            for first, stop in pairwise(bounds)
            for start in range(first, stop, size)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._batches:
            yield self._batch(rows, self._encoded)

    def probe(self) -> Batch:
        """Return the batch of one empty text, to learn the shape of the output."""
        return self._batch(np.zeros(1, np.intp), self._tokens.encode([""]))

    def contents(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Name and array of everything that decides the result."""
        yield "lengths", self._encoded.lengths
        yield "ids", self._encoded.ids
        yield "types", self._encoded.types

    def _batch(self, rows: NDArray[np.intp], encoded: Any) -> Batch:
        arrays, mask = self._tokens.padded(encoded, rows)
        single = len(self._specs) == 1
        feeds = {
            spec.name: arrays["input_ids" if single else spec.name].astype(spec.dtype)
            for spec in self._specs
        }
        return Batch(rows, len(rows), _filled(feeds, len(rows), self._static), mask)


def _filled(
    feeds: dict[str, NDArray[Any]], n_rows: int, static: int | None
) -> dict[str, NDArray[Any]]:
    """Repeat the last row until a static batch axis is full."""
    missing = (static or n_rows) - n_rows
    if missing == 0:
        return feeds
    return {
        name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        for name, array in feeds.items()
    }


def _changes(lengths: NDArray[np.intp]) -> list[int]:
    return [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]


def _as_array(value: Any, label: str) -> NDArray[Any]:
    if sp.issparse(value):
        raise TypeError(f"encode: {label} must be a dense array; got {type(value).__name__}")
    if isinstance(value, (str, bytes)):
        raise TypeError(f"encode: {label} must be an array; got {type(value).__name__}")
    if np.ma.isMaskedArray(value):
        raise TypeError(f"encode: {label} must not be masked; got {type(value).__name__}")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"encode: {label} must be a rectangular array; got {error}") from error
    return array


def _as_texts(texts: Any) -> list[str]:
    if isinstance(texts, (str, bytes)):
        raise TypeError(
            f"encode: inputs must be a list of texts; got one {type(texts).__name__}. "
            "Put it into a list."
        )
    rows: list[str] = list(texts)
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"encode: inputs must be texts; got {kind} in row {row}")
    return rows
