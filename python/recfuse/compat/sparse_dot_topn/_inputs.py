"""What sparse_dot_topn's functions are given, checked; and their results as it has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from recfuse._inputs import as_float, as_int, check_structure
from recfuse.backend import resolve_backend

__all__ = [
    "as_canonical",
    "as_index_type",
    "as_matrix",
    "as_operands",
    "as_threads",
    "as_threshold",
]

_DTYPES = ("int32", "int64", "float32", "float64")


def as_operands(A: Any, B: Any, op: str) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Return the factors as CSR of one dtype, the second one turned so that they fit."""
    for name, matrix in (("A", A), ("B", B)):
        _check_sparse(matrix, f"{op}: {name}")
    width, n_rows, n_cols = A.shape[1], B.shape[0], B.shape[1]
    if width not in (n_rows, n_cols):
        if not (A.format == B.format == "csc" and A.shape[0] == n_cols):
            raise ValueError(
                f"{op}: A must have as many columns as B has rows or columns; "
                f"got shapes {A.shape} and {B.shape}"
            )
        A, B = A.T, B.T
    elif width != n_rows:
        B = B.T
    dtype = np.result_type(A.dtype, B.dtype)
    return (
        as_canonical(A, f"{op}: A").astype(dtype, copy=False),
        as_canonical(B, f"{op}: B").astype(dtype, copy=False),
    )


def as_canonical(matrix: Any, name: str) -> sp.csr_matrix:
    """Return a csr_matrix with sorted rows, duplicates summed; the input is left alone."""
    _check_sparse(matrix, name)
    if matrix.format in ("csr", "csc", "bsr"):
        check_structure(matrix, name)
    csr = sp.csr_matrix(matrix)
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    if not np.isfinite(csr.data).all():
        raise ValueError(
            f"{name} must hold finite values; got {csr.data[~np.isfinite(csr.data)][0]}"
        )
    return csr


def as_threshold(threshold: Any, dtype: Any) -> Any:
    if threshold is None:
        return None
    value = as_float(threshold, "sp_matmul_topn: threshold")
    if np.isnan(value):
        raise ValueError("sp_matmul_topn: threshold must be a number; got nan")
    if dtype.kind == "i":  # a number of NumPy would compare integers as float64
        return int(np.rint(value)) if np.isfinite(value) else value
    with np.errstate(over="ignore"):
        return dtype.type(value)


def as_index_type(dtype: Any, op: str) -> Any:
    found = np.dtype(np.int32 if dtype is None else dtype)
    if found.name not in ("int32", "int64"):
        raise TypeError(f"{op}: idx_dtype must be int32 or int64; got {found}")
    return found


def as_threads(n_threads: Any, op: str) -> int:
    if n_threads is None:
        return 1
    n = as_int(n_threads, f"{op}: n_threads")
    if n < 0:
        n = resolve_backend("cpu").ops.default_num_threads() - 1
    return max(1, n)


def as_matrix(matrix: Any, index_type: Any, op: str) -> sp.csr_matrix:
    result = sp.csr_matrix(matrix)
    if result.nnz > np.iinfo(index_type).max:
        raise ValueError(
            f"{op}: idx_dtype must be int64 for {result.nnz} entries; got {index_type}"
        )
    result.indices = result.indices.astype(index_type, copy=False)
    result.indptr = result.indptr.astype(index_type, copy=False)
    return result


def _check_sparse(matrix: Any, name: str) -> None:
    if not sp.issparse(matrix):
        raise TypeError(
            f"{name} must be a SciPy sparse matrix or array; got {type(matrix).__name__}"
        )
    if matrix.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions; got shape {matrix.shape}")
    if matrix.dtype.name not in _DTYPES:
        raise TypeError(f"{name} must have dtype {', '.join(_DTYPES)}; got {matrix.dtype}")
