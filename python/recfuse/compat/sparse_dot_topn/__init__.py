"""sparse_dot_topn's names and signatures (1.x) over recfuse's sparse top-k."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike

from recfuse._inputs import as_int
from recfuse.compat.sparse_dot_topn._inputs import (
    as_canonical,
    as_index_type,
    as_matrix,
    as_operands,
    as_threads,
    as_threshold,
)
from recfuse.compat.sparse_dot_topn._largest import (
    is_exact_in_float,
    largest_entries,
    largest_integers,
    largest_sums,
    product,
)

__all__ = ["awesome_cossim_topn", "sp_matmul", "sp_matmul_topn", "zip_sp_matmul_topn"]

_has_openmp_support = True  # asked for by programs that pass n_threads: it is honoured


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
    left, right = as_operands(A, B, "sp_matmul_topn")
    k = as_int(top_n, "sp_matmul_topn: top_n")
    if k < 1:
        raise ValueError(f"sp_matmul_topn: top_n must be at least 1; got {k}")
    limit = as_threshold(threshold, left.dtype)
    index_type = as_index_type(idx_dtype, "sp_matmul_topn")
    num_threads = as_threads(n_threads, "sp_matmul_topn")
    n_cols = right.shape[1]
    if k >= n_cols and limit is None and not sort:
        return as_matrix(product(left, right), index_type, "sp_matmul_topn")
    largest = largest_sums if is_exact_in_float(left, right) else largest_integers
    found = largest(left, right, min(k, max(n_cols, 1)), limit, sort, num_threads)
    return as_matrix(found, index_type, "sp_matmul_topn")


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
    as_threads(n_threads, "sp_matmul")
    left, right = as_operands(A, B, "sp_matmul")
    return as_matrix(product(left, right), as_index_type(idx_dtype, "sp_matmul"), "sp_matmul")


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
    parts = [as_canonical(part, "zip_sp_matmul_topn: C_mats") for part in C_mats]
    if not parts or len({part.shape[0] for part in parts}) > 1:
        raise ValueError(
            "zip_sp_matmul_topn: C_mats must have at least one part, and all the same number of "
            f"rows; got {[part.shape for part in parts]}"
        )
    index_type = np.result_type(*(part.indices.dtype for part in parts))
    best = largest_entries(sp.hstack(parts, format="csr"), k)
    return as_matrix(best, index_type, "zip_sp_matmul_topn")


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
