"""Weights of interactions, in float64 and on the rows of any matrix, as implicit has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["bm25_weight", "normalize", "tfidf_weight"]


def tfidf_weight(X: Any) -> sp.coo_matrix:
    r"""Weight the values of rows by :math:`\sqrt{x_{ij}} (\log n - \log(1 + n_j))`.

    n is the number of rows, and :math:`n_j` of them have a value in column j.

    Parameters
    ----------
    X : sparse of shape (n, m)
        In implicit's models items by users.

    Returns
    -------
    coo_matrix of shape (n, m), float64
    """
    X = sp.coo_matrix(X)
    data = np.sqrt(X.data) * _idf(X)[X.col]
    return sp.coo_matrix((data, (X.row, X.col)), shape=X.shape)


def bm25_weight(X: Any, K1: float = 100, B: float = 0.8) -> sp.coo_matrix:
    r"""Weight the values of rows by Okapi BM25 [1]_.

    .. math:: \frac{x_{ij} (K_1 + 1)}{K_1 (1 - B + B\, l_i / \bar l) + x_{ij}}
              (\log n - \log(1 + n_j))

    with the sum :math:`l_i` of row i.

    Parameters
    ----------
    X : sparse of shape (n, m)
        In implicit's models items by users.
    K1 : float, default=100
        How soon repetition stops to count.
    B : float, default=0.8
        How much long rows are held back.

    Returns
    -------
    coo_matrix of shape (n, m), float64

    References
    ----------
    .. [1] S. Robertson, H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond",
       Foundations and Trends in Information Retrieval 3(4), 2009.
    """
    X = sp.coo_matrix(X)
    x = X.data.astype(np.float64)
    lengths = np.bincount(X.row, weights=x, minlength=X.shape[0])
    mean = lengths.mean() if lengths.any() else 1.0
    held_back = K1 * ((1.0 - B) + B * lengths / mean)[X.row]
    rest = held_back + x
    saturated = np.divide(x * (K1 + 1.0), rest, out=np.zeros_like(x), where=rest != 0)
    return sp.coo_matrix((saturated * _idf(X)[X.col], (X.row, X.col)), shape=X.shape)


def normalize(X: Any) -> sp.coo_matrix:
    """Divide every row by its length; a row of zeros stays one."""
    X = sp.coo_matrix(X)
    x = X.data.astype(np.float64)
    lengths = np.sqrt(np.bincount(X.row, weights=x**2, minlength=X.shape[0]))[X.row]
    data = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)
    return sp.coo_matrix((data, (X.row, X.col)), shape=X.shape)


def _idf(X: sp.coo_matrix) -> NDArray[np.float64]:
    idf: NDArray[np.float64] = np.log(max(float(X.shape[0]), 1.0)) - np.log1p(
        np.bincount(X.col, minlength=X.shape[1])
    )
    return idf
