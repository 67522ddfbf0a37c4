"""Helpers that programs written for implicit import."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = [
    "ParameterWarning",
    "augment_inner_product_matrix",
    "check_blas_config",
    "check_csr",
    "check_random_state",
    "nonzeros",
]


class ParameterWarning(Warning):
    """An argument was converted, which takes time."""


def check_csr(user_items: Any) -> Any:
    """Return the matrix as CSR, with a `ParameterWarning` where it had to be converted."""
    if not sp.issparse(user_items):
        raise TypeError(
            f"user_items must be a SciPy sparse matrix or array; got {type(user_items).__name__}"
        )
    if user_items.format == "csr":
        return user_items
    started = time.perf_counter()
    converted = user_items.tocsr()
    warnings.warn(
        f"Method expects CSR input, and was passed {type(user_items).__name__} instead. "
        f"Converting to CSR took {time.perf_counter() - started} seconds",
        ParameterWarning,
        stacklevel=3,
    )
    return converted


def check_random_state(random_state: Any) -> np.random.Generator:
    """Return a Generator: of a seed, of a Generator itself, or seeded from a RandomState."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31 - 1))
    return np.random.default_rng(random_state)


def nonzeros(m: Any, row: int) -> Iterator[tuple[int, float]]:
    """Yield (column, value) of the stored entries of a row of a CSR matrix."""
    begin, end = m.indptr[row], m.indptr[row + 1]
    yield from zip(m.indices[begin:end], m.data[begin:end], strict=True)


def check_blas_config() -> None:
    """Do nothing: no kernel of recfuse calls BLAS, so its threads are in nobody's way."""


def augment_inner_product_matrix(factors: NDArray[Any]) -> tuple[float, NDArray[Any]]:
    """Return the largest norm, and the factors with a column that gives every row that norm [1]_.

    With 0 in that column of a query, the order by cosine is the order by inner product.

    References
    ----------
    .. [1] Y. Bachrach et al., "Speeding up the Xbox recommender system using a Euclidean
       transformation for inner-product spaces", RecSys 2014.
    """
    squares = np.einsum("ij,ij->i", factors, factors)
    largest = squares.max()
    column = np.sqrt(np.maximum(largest - squares, 0))
    return float(np.sqrt(largest)), np.hstack([factors, column[:, None]])
