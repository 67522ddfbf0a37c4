"""sparse_dot_topn's names and signatures (1.x) over recfuse's sparse top-k.

Float32, and whole numbers that float32 holds, are answered by `recfuse.ops.neighbour_topk` alone.
For float64 the search goes over values rounded to float32 and returns a few more candidates than
asked for; those are scored in float64. A row whose candidates are not proven to hold its best ones
is multiplied out, and so are larger integers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike, NDArray

from recfuse._inputs import as_float, as_int, check_structure
from recfuse.backend import resolve_backend
from recfuse.ops import neighbour_topk

__all__ = ["awesome_cossim_topn", "sp_matmul", "sp_matmul_topn", "zip_sp_matmul_topn"]

_has_openmp_support = True  # asked for by programs that pass n_threads: it is honoured

_DTYPES = ("int32", "int64", "float32", "float64")
_MORE = 16  # candidates beyond top_n, so that rows with close scores need not be multiplied out
_BLOCK = 1 << 22  # candidates, or products of a row that is multiplied out, at a time
_EXACT = 2.0**24  # float32 holds every whole number up to here


def sp_matmul_topn(
    A: Any,
    B: Any,
    top_n: int,
    threshold: float | None = None,
    sort: bool = False,
    density: float | None = None,
    n_threads: int | None = None,
    idx_dtype: DTypeLike | None = None,
) -> sp.csr_matrix:
    """Return the `top_n` largest entries above `threshold` of every row of ``A @ B``.

    Parameters
    ----------
    A : sparse of shape (n_rows, n)
        32- or 64-bit integers or floats; finite.
    B : sparse of shape (n, n_cols) or (n_cols, n)
        The number of columns of `A` says which; where both fit, it is used as it is. Two CSC
        matrices whose rows and columns fit only the other way round are taken as transposes.
    top_n : int
        Entries per row, at least 1.
    threshold : float, optional
        Only entries larger than this; rounded to a whole number where the data are integers. None
        keeps all entries, negative ones and zeros, too.
    sort : bool, default=False
        Largest first, and equal ones by column. Otherwise in the order of ``A @ B`` of SciPy.
    density : float, optional
        Ignored: the memory that is needed does not depend on it.
    n_threads : int, optional
        None or 0 is one thread, a negative number all but one.
    idx_dtype : {int32, int64}, optional
        Of the indices of the result; int32 where it is None.

    Returns
    -------
    csr_matrix of shape (n_rows, n_cols)
        Of the common dtype of `A` and `B`. Of equal entries, those with the smaller columns are
        in it. A sum of floats is made in float64 and rounded once; one of integers that does not
        fit wraps around, as in NumPy.

    Raises
    ------
    TypeError
        If a matrix is not sparse or has another dtype.
    ValueError
        If the shapes do not fit, a value is not finite, or `top_n` < 1.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recfuse.compat.sparse_dot_topn import sp_matmul_topn
    >>> names = sp.csr_matrix([[1.0, 0, 2], [0, 1, 1], [1, 1, 0]])
    >>> sp_matmul_topn(names, names.T, top_n=2, sort=True).toarray().tolist()
    [[5.0, 2.0, 0.0], [2.0, 2.0, 0.0], [1.0, 0.0, 2.0]]
    """
    del density
    left, right = _operands(A, B, "sp_matmul_topn")
    k = as_int(top_n, "sp_matmul_topn: top_n")
    if k < 1:
        raise ValueError(f"sp_matmul_topn: top_n must be at least 1; got {k}")
    limit = _as_threshold(threshold, left.dtype)
    index_type = _as_index_type(idx_dtype, "sp_matmul_topn")
    num_threads = _as_threads(n_threads, "sp_matmul_topn")
    shape = (left.shape[0], right.shape[1])
    if k >= shape[1] and limit is None and not sort:
        return _as_matrix(_product(left, right), index_type)
    k = min(k, max(shape[1], 1))
    exact = left.dtype == np.float32 or _is_exact_in_float32(left, right)
    # Both are looked up by pair, so that a score costs two short rows.
    columns = None if exact and sort else right.T.tocsr()
    step = max(1, _BLOCK // (k + _MORE))
    parts = []
    for first in range(0, shape[0], step):
        block = left[first : first + step]
        if exact:
            rows, ids, scores = _pairs(*neighbour_topk(block, right, k, num_threads=num_threads))
            scores = scores.astype(left.dtype)
        elif left.dtype.kind == "i":
            rows, ids, scores = _best(*_entries(_product(block, right)), k)
        else:
            rows, ids, scores = _pairs(*_rescored(block, right, columns, k, limit, num_threads))
        if limit is not None:
            kept = scores > limit
            rows, ids, scores = rows[kept], ids[kept], scores[kept]
        if not sort:
            # SciPy reaches an entry at the first index that the two rows share.
            _, reached = _shared(block, columns, rows, ids, num_threads)
            order = np.lexsort((-ids, -reached, rows))
            ids, scores = ids[order], scores[order]
        parts.append((np.bincount(rows, minlength=block.shape[0]), ids, scores))
    return _stacked(parts, shape, left.dtype, index_type)


def sp_matmul(
    A: Any, B: Any, n_threads: int | None = None, idx_dtype: DTypeLike | None = None
) -> sp.csr_matrix:
    """Return ``A @ B``, `B` turned as in `sp_matmul_topn`; SciPy's product, on one thread.

    Parameters
    ----------
    A, B, idx_dtype
        As in `sp_matmul_topn`.
    n_threads : int, optional
        Ignored.

    Returns
    -------
    csr_matrix of shape (n_rows, n_cols)

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recfuse.compat.sparse_dot_topn import sp_matmul
    >>> sp_matmul(sp.csr_matrix([[1.0, 2.0]]), sp.csr_matrix([[3.0], [4.0]])).toarray().tolist()
    [[11.0]]
    """
    _as_threads(n_threads, "sp_matmul")
    left, right = _operands(A, B, "sp_matmul")
    return _as_matrix(
        _product(left, right).astype(left.dtype), _as_index_type(idx_dtype, "sp_matmul")
    )


def zip_sp_matmul_topn(top_n: int, C_mats: Sequence[Any]) -> sp.csr_matrix:
    """Merge the results for parts of `B`: the `top_n` largest entries of every row, sorted.

    Parameters
    ----------
    top_n : int
        At most the number with which the parts were made.
    C_mats : sequence of sparse, each of shape (n_rows, n_cols_i)
        ``sp_matmul_topn(A, B_i, ...)`` of the parts in their order.

    Returns
    -------
    csr_matrix of shape (n_rows, sum of n_cols_i)
        Largest first, and equal ones by column.

    Raises
    ------
    TypeError
        If a part is not sparse.
    ValueError
        If there is no part, they differ in their rows, or `top_n` < 1.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recfuse.compat.sparse_dot_topn import zip_sp_matmul_topn
    >>> parts = [sp.csr_matrix([[1.0, 3.0]]), sp.csr_matrix([[2.0, 0.5]])]
    >>> zip_sp_matmul_topn(2, parts).toarray().tolist()
    [[0.0, 3.0, 2.0, 0.0]]
    """
    k = as_int(top_n, "zip_sp_matmul_topn: top_n")
    if k < 1:
        raise ValueError(f"zip_sp_matmul_topn: top_n must be at least 1; got {k}")
    parts = [_as_csr(part, "zip_sp_matmul_topn: C_mats") for part in C_mats]
    if not parts or len({part.shape[0] for part in parts}) > 1:
        raise ValueError(
            "zip_sp_matmul_topn: C_mats must have at least one part, and all the same number of "
            f"rows; got {[part.shape for part in parts]}"
        )
    together = sp.hstack(parts, format="csr")
    rows, ids, scores = _best(*_entries(together), k)
    counts = np.bincount(rows, minlength=together.shape[0])
    index_type = np.result_type(*(part.indices.dtype for part in parts))
    return _stacked([(counts, ids, scores)], together.shape, together.dtype, index_type)


def awesome_cossim_topn(
    A: Any,
    B: Any,
    ntop: int,
    lower_bound: float = 0,
    use_threads: bool = False,
    n_jobs: int = 1,
    return_best_ntop: bool | None = None,
    test_nnz_max: int | None = None,
) -> Any:
    """`sp_matmul_topn` under the name and with the arguments that it had before 1.0; deprecated.

    Returns
    -------
    csr_matrix, or with `return_best_ntop` a tuple of it and the longest row's number of entries
    """
    message = "awesome_cossim_topn is deprecated: call sp_matmul_topn"
    if test_nnz_max is not None:
        raise DeprecationWarning(message)
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    result = sp_matmul_topn(
        A, B, ntop, threshold=lower_bound, sort=True, n_threads=n_jobs if use_threads else None
    )
    if return_best_ntop:
        return result, np.diff(result.indptr).max(initial=0)
    return result


def _rescored(
    left: sp.csr_matrix,
    right: sp.csr_matrix,
    columns: sp.csr_matrix,
    k: int,
    limit: Any,
    num_threads: int,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return columns and values of the best entries, padded, where float32 cannot hold the values.

    A rounded value is off by 2^-24 of itself, so with scales that keep all values at most 1 a
    rounded sum is off by less than ``2^-22 |a| |b| + 2^-140 n``: what float32 cannot show of
    tiny values is the second term. What is not a candidate has a rounded sum of at most the last
    candidate's.
    """
    wide = min(k + _MORE, right.shape[1])
    (small_left, left_scale), (small_right, right_scale) = _rounded(left), _rounded(right)
    found, sums = neighbour_topk(small_left, small_right, wide, num_threads=num_threads)
    last = sums[:, -1].astype(np.float64)  # -inf where all entries of the row are candidates
    squares = small_right.data.astype(np.float64) ** 2
    longest = np.sqrt(np.bincount(small_right.indices, squares).max(initial=0))
    norms = np.sqrt(
        np.add.reduceat(  # of rows; an empty one has no last candidate
            np.append(small_left.data.astype(np.float64) ** 2, 0), small_left.indptr[:-1]
        )
    )
    bound = 2.0**-22 * norms * longest + 2.0**-140 * right.shape[0]
    reach = (last + bound) * left_scale * right_scale  # of any entry that is no candidate

    rows, ids, _ = _pairs(found, sums)
    scores = np.full(found.shape, -np.inf)
    scores[found >= 0], _ = _shared(left, columns, rows, ids, num_threads)
    order = np.lexsort((found, -scores), axis=-1)[:, :k]
    ids, scores = (np.take_along_axis(part, order, axis=1) for part in (found, scores))
    proven = np.isneginf(last) | (scores[:, -1] > reach)
    if limit is not None:
        proven |= reach < limit
    if wide == right.shape[1]:
        proven[:] = True
    open_rows = np.flatnonzero(~proven)
    step = max(1, _BLOCK // max(1, right.shape[1]))
    for first in range(0, len(open_rows), step):
        some = open_rows[first : first + step]
        again, best, values = _best(*_entries(_product(left[some], right)), k)
        place = np.arange(len(again)) - np.searchsorted(again, again)
        ids[some] = -1
        ids[some[again], place], scores[some[again], place] = best, values
    return ids, scores


def _shared(
    left: sp.csr_matrix,
    columns: sp.csr_matrix,
    rows: NDArray[Any],
    ids: NDArray[Any],
    num_threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the product of row `rows[p]` of the one and row `ids[p]` of the other, for every p.

    And the first index that the two share; `rows` ascend.
    """
    starts = np.append(0, np.cumsum(np.bincount(rows, minlength=left.shape[0])))
    shape = (left.shape[0], columns.shape[0])
    products: tuple[NDArray[np.float64], NDArray[np.int32]] = resolve_backend(
        "cpu"
    ).ops.shared_products(
        _parts(left.indptr, left.indices, left.shape),
        left.data.astype(np.float64, copy=False),
        _parts(columns.indptr, columns.indices, columns.shape),
        columns.data.astype(np.float64, copy=False),
        _parts(starts, ids, shape),
        num_threads=num_threads,
    )
    return products


def _parts(indptr: Any, indices: Any, shape: tuple[int, int]) -> tuple[Any, ...]:
    """Return a pattern as the compiled modules take it."""
    return indptr.astype(np.int64), indices.astype(np.int32), shape, None


def _pattern(matrix: sp.csr_matrix) -> sp.csr_matrix:
    ones = np.ones(matrix.nnz, np.float32)
    return sp.csr_matrix((ones, matrix.indices, matrix.indptr), shape=matrix.shape)


def _product(left: sp.csr_matrix, right: sp.csr_matrix) -> sp.csr_matrix:
    """Return the product in SciPy's order, with the sums of zero that SciPy leaves out."""
    if left.dtype == np.float32:
        wide = _product(left.astype(np.float64), right.astype(np.float64))
        # In place, because `astype` of a matrix sorts its rows.
        wide.data = wide.data.astype(np.float32)
        return wide
    product = left @ right
    if left.dtype.kind == "f" and _smallest(left) > 0 and _smallest(left) * _smallest(right) > 0:
        return product
    whole = _pattern(left) @ _pattern(right)
    if whole.nnz == product.nnz:
        return product
    # In the same order, and what is not in the product is zero.
    places = [
        rows * np.int64(whole.shape[1]) + ids for rows, ids, _ in map(_entries, (whole, product))
    ]
    scores = np.zeros(whole.nnz, product.dtype)
    scores[np.isin(places[0], places[1], assume_unique=True)] = product.data
    return sp.csr_matrix((scores, whole.indices, whole.indptr), shape=whole.shape)


def _best(
    rows: NDArray[Any], ids: NDArray[Any], scores: NDArray[Any], k: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the k best entries of every row, rows ascending, largest first, then by column."""
    order = np.lexsort((ids, -scores, rows))
    rows, ids, scores = rows[order], ids[order], scores[order]
    starts = np.searchsorted(rows, rows, side="left")
    kept = np.arange(len(rows)) - starts < k
    return rows[kept], ids[kept], scores[kept]


def _pairs(
    ids: NDArray[Any], scores: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    found = ids >= 0
    rows = np.repeat(np.arange(len(ids)), found.sum(axis=1))
    return rows, ids[found], scores[found]


def _entries(matrix: sp.csr_matrix) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return rows, matrix.indices, matrix.data


def _stacked(parts: Any, shape: tuple[int, int], dtype: Any, index_type: Any) -> sp.csr_matrix:
    counts, ids, scores = (
        np.concatenate([part[i] for part in parts]) if parts else np.empty(0, int) for i in range(3)
    )
    indptr = np.zeros(shape[0] + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    matrix = sp.csr_matrix((scores.astype(dtype), ids, indptr), shape=shape)
    return _as_matrix(matrix, index_type)


def _as_matrix(matrix: Any, index_type: Any) -> sp.csr_matrix:
    result = sp.csr_matrix(matrix)
    if result.nnz > np.iinfo(index_type).max:
        raise ValueError(
            f"sp_matmul_topn: idx_dtype must be int64 for {result.nnz} entries; got {index_type}"
        )
    result.indices = result.indices.astype(index_type, copy=False)
    result.indptr = result.indptr.astype(index_type, copy=False)
    return result


def _operands(A: Any, B: Any, op: str) -> tuple[sp.csr_matrix, sp.csr_matrix]:
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
        _as_csr(A, f"{op}: A").astype(dtype, copy=False),
        _as_csr(B, f"{op}: B").astype(dtype, copy=False),
    )


def _check_sparse(matrix: Any, name: str) -> None:
    if not sp.issparse(matrix):
        raise TypeError(
            f"{name} must be a SciPy sparse matrix or array; got {type(matrix).__name__}"
        )
    if matrix.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions; got shape {matrix.shape}")
    if matrix.dtype.name not in _DTYPES:
        raise TypeError(f"{name} must have dtype {', '.join(_DTYPES)}; got {matrix.dtype}")


def _as_csr(matrix: Any, name: str) -> sp.csr_matrix:
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


def _as_threshold(threshold: Any, dtype: Any) -> Any:
    if threshold is None:
        return None
    value = as_float(threshold, "sp_matmul_topn: threshold")
    if np.isnan(value):
        raise ValueError("sp_matmul_topn: threshold must be a number; got nan")
    return np.rint(value) if dtype.kind == "i" else dtype.type(value)


def _as_index_type(dtype: Any, op: str) -> Any:
    found = np.dtype(np.int32 if dtype is None else dtype)
    if found.name not in ("int32", "int64"):
        raise TypeError(f"{op}: idx_dtype must be int32 or int64; got {found}")
    return found


def _as_threads(n_threads: Any, op: str) -> int:
    if n_threads is None:
        return 1
    n = as_int(n_threads, f"{op}: n_threads")
    if n < 0:
        n = resolve_backend("cpu").ops.default_num_threads() - 1
    return max(1, n)


def _is_exact_in_float32(left: sp.csr_matrix, right: sp.csr_matrix) -> bool:
    """Whether all values and sums are whole numbers that float32 holds."""
    if any(m.dtype.kind == "f" and (m.data != np.rint(m.data)).any() for m in (left, right)):
        return False
    row_sums = np.asarray(abs(left.astype(np.float64)).sum(axis=1))
    most = row_sums.max(initial=0)
    return bool(max(most * _largest(right), most, _largest(right)) < _EXACT)


def _smallest(matrix: sp.csr_matrix) -> float:
    return float(matrix.data.min(initial=np.inf))


def _largest(matrix: sp.csr_matrix) -> float:
    return float(np.abs(matrix.data.astype(np.float64)).max(initial=0))


def _rounded(matrix: sp.csr_matrix) -> tuple[sp.csr_array, float]:
    """Return the matrix with values of at most 1 in float32, and the power of two that it took."""
    scale = float(np.exp2(np.ceil(np.log2(_largest(matrix) or 1.0))))
    data = (matrix.data / scale).astype(np.float32)
    return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape), scale
