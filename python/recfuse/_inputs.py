"""Types, dtypes and layouts of what users pass; values are checked once, in C++."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._available import available_bytes
from recfuse._device_arrays import is_on_gpu, on_gpu, read_in_place
from recfuse.backend import resolve_backend
from recfuse.interactions import Interactions

__all__ = [
    "as_csr",
    "as_filters",
    "as_float",
    "as_ids",
    "as_int",
    "as_matrix",
    "as_modalities",
    "as_num_threads",
    "as_rng",
    "check_choice",
    "check_ids",
    "check_keys",
    "check_name",
    "csr_parts",
    "in_place",
    "is_canonical",
    "is_sparse",
]

Float32 = NDArray[np.float32]

_LARGEST_ID = 2**31 - 1
_BLOCK_ELEMENTS = 1 << 20  # converted at a time
_UNASKED_BYTES = 64 << 20  # a copy of so many is made without a look at what is available


def as_matrix(x: Any, name: str, device: str = "cpu") -> Float32:
    """Return `x` as a C-contiguous float32 matrix; no copy where it is one already.

    An array in the memory of a GPU stays there: it becomes a `DeviceMatrix`, which ops on `device`
    take. Raises TypeError for anything that is not numeric, or is where `device` cannot read it,
    and ValueError unless it has two dimensions.
    """
    if sp.issparse(x):
        raise TypeError(f"{name} must be a dense array; got {type(x).__name__}")
    if is_on_gpu(x):
        return cast(Float32, on_gpu(x, name, device))
    array = _as_array(x, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions; got shape {array.shape}")
    return array if in_place(array) else _converted(array, name)


def in_place(array: NDArray[Any]) -> bool:
    """Whether the compiled modules can read this array where it is."""
    flags = array.flags
    return bool(array.dtype == np.float32 and flags.c_contiguous and flags.aligned)


def _as_float32(array: NDArray[Any], name: str) -> Float32:
    return array if array.dtype == np.float32 else _converted(array, name)


def _converted(array: NDArray[Any], name: str) -> Float32:
    """Return a float32 copy; a value that is finite and would be infinite there is refused."""
    n_bytes = 4 * array.size
    if n_bytes > _UNASKED_BYTES and n_bytes > available_bytes():
        raise MemoryError(
            f"{name} must be C-contiguous float32, which is used in place, or fit into memory as "
            f"such ({n_bytes:,} bytes); got {array.dtype} and {available_bytes():,} bytes"
        )
    cast = np.empty(array.shape, np.float32)
    # A block at a time: of a matrix in a file, no more than that is in memory twice.
    rows = max(1, _BLOCK_ELEMENTS // max(1, array[:1].size))
    for first in range(0, len(array), rows):
        block, out = array[first : first + rows], cast[first : first + rows]
        with np.errstate(over="ignore"):
            out[...] = block
        lost = np.isinf(out) & np.isfinite(block)
        if lost.any():
            raise ValueError(f"{name} must fit into float32; got {block[lost].flat[0]}")
    return cast


def _as_array(x: Any, name: str) -> NDArray[Any]:
    """Return `x` as an array; what lies under a mask is no data, and would pass for some."""
    if np.ma.isMaskedArray(x):
        raise TypeError(f"{name} must not be masked; got {type(x).__name__}. Fill it first.")
    try:
        return np.asarray(read_in_place(x, name))
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{name} must have rows of one length; got {type(x).__name__}") from error


def as_modalities(
    x: Any, name: str, expected: Sequence[str] | None = None, device: str = "cpu"
) -> dict[str, Float32]:
    """Return a mapping modality -> float32 matrix, in the order of `expected` if that is given.

    Arrays on a GPU as in `as_matrix`.
    """
    if not isinstance(x, Mapping):
        raise TypeError(f"{name} must be a mapping modality -> array; got {type(x).__name__}")
    for key in x:
        if not isinstance(key, str):
            raise TypeError(f"{name} must have names of modalities as keys; got {key!r}")
    check_keys(x, name, expected)
    return {key: as_matrix(x[key], f"{name}[{key!r}]", device) for key in expected or x}


def check_keys(x: Mapping[str, Any], name: str, expected: Sequence[str] | None) -> None:
    """Raise ValueError unless the keys of `x` are the `expected` modalities."""
    if expected is None:
        return
    missing = [key for key in expected if key not in x]
    unknown = [key for key in x if key not in expected]
    if missing or unknown:
        raise ValueError(f"{name} must have the modalities {list(expected)}; got {list(x)}")


def check_name(x: Any, name: str) -> None:
    """Raise TypeError unless `x` is a string; C++ knows which ones there are."""
    if not isinstance(x, str):
        raise TypeError(f"{name} must be a string; got {x!r}")


def check_choice(x: Any, name: str, choices: Sequence[str]) -> None:
    """Raise TypeError unless `x` is a string, and ValueError unless it is one of the choices."""
    check_name(x, name)
    if x not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {x!r}")


def _way_to_csr(x: Any) -> str:
    """Say how what people pass instead becomes a sparse matrix."""
    if hasattr(x, "columns"):
        return " (recfuse.Interactions.from_frame makes one of a table of events)"
    return " (scipy.sparse.csr_array makes one)" if isinstance(x, (np.ndarray, list)) else ""


def as_csr(x: Any, name: str, num_threads: int = 1) -> sp.csr_array:
    """Return a sparse matrix as a canonical float32 csr_array: sorted rows, duplicates summed.

    Interactions become their matrix. Stored zeros stay: an exclusion list counts entries, not
    values. No copy where nothing changes.
    """
    if isinstance(x, Interactions):
        return x.to_csr()
    if not sp.issparse(x):
        raise TypeError(
            f"{name} must be a SciPy sparse matrix or array; got {type(x).__name__}{_way_to_csr(x)}"
        )
    if x.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions; got shape {x.shape}")
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers; got dtype {x.dtype}")
    csr = x if is_canonical(x, num_threads) else _made_canonical(x, name)
    if not isinstance(csr, sp.csr_array):
        csr = sp.csr_array(csr)
    values = _as_float32(csr.data, name)
    if values is csr.data:
        return csr
    return sp.csr_array((values, csr.indices, csr.indptr), shape=csr.shape)


def is_canonical(x: Any, num_threads: int = 1) -> bool:
    """Whether `x` is CSR that needs neither a change nor an error, told in one pass."""
    if x.format != "csr" or len(x.indices) != len(x.data):
        return False
    return bool(
        resolve_backend("cpu").ops.is_canonical_csr(x.indptr, x.indices, x.shape, num_threads)
    )


def _made_canonical(x: Any, name: str) -> sp.csr_array:
    if x.format in ("csr", "csc", "bsr"):
        check_structure(x, name)
    elif x.format == "coo":
        _check_coordinates(x, name)
    csr = x if isinstance(x, sp.csr_array) else sp.csr_array(x)
    if csr.has_canonical_format:
        return csr
    # A copy, because inputs are read-only; in float64, because float32 stops counting at 2^24.
    csr = csr.astype(np.float64, copy=True)
    csr.sum_duplicates()
    return csr


def is_sparse(x: Any) -> bool:
    """Whether `x` is what `as_csr` takes: a sparse matrix, or interactions."""
    return bool(sp.issparse(x)) or isinstance(x, Interactions)


def check_structure(matrix: Any, name: str) -> None:
    """Raise ValueError unless `indptr` and `indices` make a matrix; SciPy trusts them unseen."""
    indptr, indices = matrix.indptr, matrix.indices
    (outer, inner), noun = matrix.shape, "column"
    if matrix.format == "csc":
        outer, inner, noun = inner, outer, "row"
    elif matrix.format == "bsr":
        height, width = matrix.blocksize
        outer, inner, noun = outer // height, inner // width, "block column"
    if len(indptr) != outer + 1:
        raise ValueError(f"{name} must have an indptr of {outer + 1} entries; got {len(indptr)}")
    if indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise ValueError(f"{name} must have an indptr that starts at 0 and never decreases")
    if indptr[-1] > len(indices) or len(indices) != len(matrix.data):
        raise ValueError(
            f"{name} must have one index and one value per entry; "
            f"got indptr[-1] {indptr[-1]}, {len(indices)} indices, {len(matrix.data)} values"
        )
    _check_indices(indices, inner, name, noun)


def _check_coordinates(coo: Any, name: str) -> None:
    """Raise ValueError unless the entries of a COO matrix lie inside it."""
    for indices, size, noun in zip(coo.coords, coo.shape, ("row", "column"), strict=True):
        if len(indices) != len(coo.data):
            raise ValueError(
                f"{name} must have one {noun} index per value ({len(coo.data)}); got {len(indices)}"
            )
        _check_indices(indices, size, name, noun)


def _check_indices(indices: NDArray[Any], size: int, name: str, noun: str) -> None:
    if len(indices) and (indices.min() < 0 or indices.max() >= size):
        wrong = indices.min() if indices.min() < 0 else indices.max()
        raise ValueError(f"{name} must have {noun} indices in [0, {size}); got {wrong}")


def as_ids(x: Any, name: str) -> NDArray[np.int64]:
    """Return ids as a 1-D int64 array; a scalar becomes one id. Floats and strings are no ids."""
    array = _as_array(x, name)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        hint = " (recfuse.LabelledModel takes other ids)" if array.dtype.kind in "OSU" else ""
        raise TypeError(f"{name} must be integers; got dtype {array.dtype}{hint}")
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        raise IndexError(f"{name} must be below 2**63; got {array.max()}")
    if array.ndim > 1:
        raise ValueError(f"{name} must have at most 1 dimension; got shape {array.shape}")
    return np.atleast_1d(array).astype(np.int64, copy=False)


def check_ids(ids: NDArray[np.int64], n: int, name: str) -> NDArray[np.int64]:
    """Return `ids`, or raise IndexError for one that is not in [0, n)."""
    outside = ids[(ids < 0) | (ids >= n)]
    if len(outside):
        raise IndexError(f"{name} must be in [0, {n}); got {outside[0]}")
    return ids


def as_int(value: Any, name: str) -> int:
    """Return an integer; a bool or a float is none."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must fit into 64 bits; got {value}")
    return int(value)


def as_num_threads(value: Any) -> int:
    """Return a number of threads; C++ caps what is more than it would ever start."""
    return min(as_int(value, "num_threads"), 2**31 - 1)


def as_float(value: Any, name: str) -> float:
    """Return a real number; a bool or a string is none."""
    real = (int, float, np.integer, np.floating)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, real):
        raise TypeError(f"{name} must be a number; got {value!r}")
    return float(value)


def as_rng(random_state: int | np.random.Generator | None) -> np.random.Generator:
    """Return the generator, or a new one from the seed; 0 is a seed, None is fresh entropy."""
    if random_state is None or isinstance(random_state, np.random.Generator):
        return np.random.default_rng(random_state)
    if isinstance(random_state, (bool, np.bool_)) or not isinstance(
        random_state, (int, np.integer)
    ):
        raise TypeError(
            f"random_state must be an integer, a numpy Generator or None; got {random_state!r}"
        )
    if random_state < 0:
        raise ValueError(f"random_state must be at least 0; got {random_state}")
    return np.random.default_rng(int(random_state))


class CsrParts(NamedTuple):
    """A sparse matrix that `as_csr` has checked, as the compiled modules take it."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    shape: tuple[int, int]
    values: Float32


def csr_parts(csr: sp.csr_array) -> CsrParts:
    """Return a matrix of `as_csr` in parts, without a copy where the types are right."""
    if csr.shape[1] > _LARGEST_ID:
        raise ValueError(f"matrix must have at most 2147483647 columns; got {csr.shape[1]}")
    return CsrParts(
        np.ascontiguousarray(csr.indptr, np.int64),
        np.ascontiguousarray(csr.indices, np.int32),
        csr.shape,
        np.ascontiguousarray(csr.data, np.float32),
    )


def as_filters(exclude: Any, allow: Any, num_threads: int = 1) -> dict[str, Any]:
    """Return the three filters of a search as the compiled modules take them.

    A matrix may come in parts, where a model has checked it already.
    """
    allow_ids = None
    if allow is not None and not is_sparse(allow):
        allow_ids, allow = _as_id32(allow, "allow"), None
    return {
        "exclude": _filter_parts(exclude, "exclude", num_threads),
        "allow": _filter_parts(allow, "allow", num_threads),
        "allow_ids": allow_ids,
    }


def _filter_parts(x: Any, name: str, num_threads: int) -> CsrParts | None:
    if x is None or isinstance(x, CsrParts):
        return x
    return csr_parts(as_csr(x, name, num_threads))


def _as_id32(ids: ArrayLike, name: str) -> NDArray[np.int32]:
    if isinstance(ids, np.ndarray) and ids.dtype == np.int32 and ids.ndim == 1:
        return np.ascontiguousarray(ids)  # the compiled modules look at each of them anyway
    wide = as_ids(ids, name)
    if wide.size and (wide.min() < 0 or wide.max() > _LARGEST_ID):
        outside = wide[(wide < 0) | (wide > _LARGEST_ID)]
        raise IndexError(f"{name} must hold item ids; got {outside[0]}")
    return wide.astype(np.int32)
