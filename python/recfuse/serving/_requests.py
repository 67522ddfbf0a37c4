"""Requests in several modalities: what each of them has, and its vectors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._device_arrays import is_on_gpu, read_in_place
from recfuse._inputs import as_matrix
from recfuse.backend import resolve_backend

__all__ = ["EncodedRequests", "as_encoder", "encode_requests"]

Flags = NDArray[np.bool_]


class EncodedRequests(NamedTuple):
    """Vectors by modality, as `FusedIndex` takes queries and items.

    Attributes
    ----------
    vectors : dict of str to array of shape (n, dim_m), float32
        A zero row for what has no such modality.
    present : dict of str to ndarray of shape (n,), bool
    seconds : dict of str to float
        What the encoder of each modality took.
    """

    vectors: dict[str, Any]
    present: dict[str, Flags]
    seconds: dict[str, float]


def as_encoder(encoder: Any, name: str) -> Any:
    """Return what is called with the inputs of a modality; None where they are vectors already."""
    if encoder is None:
        return None
    for method in ("encode", "transform"):
        if hasattr(encoder, method):
            return getattr(encoder, method)
    if callable(encoder):
        return encoder
    raise TypeError(
        f"encoders[{name!r}] must have encode() or transform(), be a function, or None; "
        f"got {type(encoder).__name__}"
    )


def encode_requests(
    inputs: Any,
    modalities: Sequence[str],
    encoders: Mapping[str, Any],
    dims: Mapping[str, int],
    present: Mapping[str, ArrayLike] | None,
    device: str = "cpu",
) -> EncodedRequests:
    """Encode what is there of every modality; `dims` are the lengths of rows that are not.

    Vectors that are on a GPU already, or can stay there, do not come to the host where `device` is
    'cuda' and no row lacks them.
    """
    _check_names(inputs, "inputs", modalities)
    inputs = {
        name: value if name in encoders else _array(value, f"inputs[{name!r}]", device)
        for name, value in inputs.items()
    }
    n_rows = _n_rows(inputs)
    flags = _presence(inputs, modalities, n_rows, present)
    vectors, seconds = {}, {}
    for name in modalities:
        start = time.perf_counter()
        rows = np.flatnonzero(flags[name])
        if len(rows) == 0:
            vectors[name] = np.zeros((n_rows, dims.get(name, 1)), np.float32)
        elif len(rows) == n_rows:
            vectors[name] = _vectors(
                inputs[name], encoders.get(name), n_rows, dims.get(name), name, device
            )
        else:
            some = _vectors(
                _take(inputs[name], rows), encoders.get(name), len(rows), dims.get(name), name
            )
            vectors[name] = np.zeros((n_rows, some.shape[1]), np.float32)
            vectors[name][rows] = some
        seconds[name] = time.perf_counter() - start
    return EncodedRequests(vectors, flags, seconds)


def _array(value: Any, label: str, device: str) -> Any:
    """Return vectors that another library has as what has a length and rows."""
    return as_matrix(value, label, device) if is_on_gpu(value) else read_in_place(value, label)


def _vectors(
    inputs: Any, encoder: Any, n_rows: int, dim: int | None, name: str, device: str = "cpu"
) -> Any:
    """Return one vector per input, as long as those of the items."""
    if encoder is None:
        label, verb = f"inputs[{name!r}]", "have"
        vectors = as_matrix(inputs, label, device)
    else:
        # Encoders run on the first GPU.
        on_first = 0 in resolve_backend(device).numbers
        stays = on_first and getattr(encoder, "keeps_on_device", False)
        encode = encoder.encode_on_device if stays else as_encoder(encoder, name)
        encoded = encode(inputs)
        # Encoders of images say what they could not read beside the vectors; here all are read.
        encoded = getattr(encoded, "vectors", encoded)
        label, verb = f"encoders[{name!r}]", "give"
        if sp.issparse(encoded):
            raise TypeError(f"{label} must give dense vectors; got {type(encoded).__name__}")
        vectors = as_matrix(encoded, label, device)
        if len(vectors) != n_rows:
            raise ValueError(
                f"{label} must give one vector per input ({n_rows}); got shape {vectors.shape}"
            )
    if dim is not None and vectors.shape[1] != dim:
        raise ValueError(
            f"{label} must {verb} {dim} columns like the items; got {vectors.shape[1]}"
        )
    return vectors


def _check_names(x: Any, argument: str, modalities: Sequence[str]) -> None:
    if not isinstance(x, Mapping):
        raise TypeError(f"{argument} must be a mapping modality -> inputs; got {type(x).__name__}")
    unknown = [name for name in x if name not in modalities]
    if unknown:
        raise ValueError(f"{argument} must have modalities of {list(modalities)}; got {unknown}")


def _n_rows(inputs: Mapping[str, Any]) -> int:
    lengths = {
        name: _length(value, f"inputs[{name!r}]")
        for name, value in inputs.items()
        if value is not None
    }
    if not lengths:
        raise ValueError(f"inputs must have a modality that is not None; got {list(inputs)}")
    first, n_rows = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != n_rows:
            raise ValueError(
                f"inputs[{name!r}] must have {n_rows} rows like inputs[{first!r}]; got {length}"
            )
    return n_rows


def _length(value: Any, label: str) -> int:
    if isinstance(value, (str, bytes)):
        raise TypeError(
            f"{label} must be a list of inputs; got one {type(value).__name__}. Put it into a list."
        )
    if isinstance(value, Mapping):  # a model with several inputs, or the columns of a table
        if not value:
            raise ValueError(f"{label} must have a column; got an empty mapping")
        column = next(iter(value))
        return _length(value[column], f"{label}[{column!r}]")
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return int(shape[0])
    try:
        return len(value)
    except TypeError as error:
        raise TypeError(
            f"{label} must have one row per request; got {type(value).__name__}"
        ) from error


def _presence(
    inputs: Mapping[str, Any],
    modalities: Sequence[str],
    n_rows: int,
    present: Mapping[str, ArrayLike] | None,
) -> dict[str, Flags]:
    if present is not None:
        _check_names(present, "present", modalities)
    flags = {}
    for name in modalities:
        flags[name] = _has_rows(inputs.get(name), n_rows)
        if present is None or name not in present:
            continue
        mask = np.asarray(present[name])
        if mask.dtype != np.bool_:
            raise TypeError(f"present[{name!r}] must be boolean; got dtype {mask.dtype}")
        if mask.shape != (n_rows,):
            raise ValueError(f"present[{name!r}] must have shape ({n_rows},); got {mask.shape}")
        if inputs.get(name) is None and mask.any():
            raise ValueError(
                f"present[{name!r}] must be False where inputs have no {name!r}; got True"
            )
        flags[name] &= mask
    return flags


def _has_rows(value: Any, n_rows: int) -> Flags:
    """Which rows are not None; only what can hold a None is looked at."""
    if value is None:
        return np.zeros(n_rows, np.bool_)
    if hasattr(value, "isna") and getattr(value, "ndim", 2) == 1:  # a column of pandas
        return np.asarray(~value.isna(), np.bool_)
    of_objects = isinstance(value, np.ndarray) and value.dtype.kind == "O" and value.ndim == 1
    if isinstance(value, (list, tuple)) or of_objects:
        return np.fromiter((row is not None for row in value), np.bool_, n_rows)
    return np.ones(n_rows, np.bool_)


def _take(value: Any, rows: NDArray[np.intp]) -> Any:
    if isinstance(value, Mapping):
        return {column: _take(cells, rows) for column, cells in value.items()}
    if isinstance(value, (list, tuple)):
        return [value[row] for row in rows]
    return value.iloc[rows] if hasattr(value, "iloc") else value[rows]
