"""Weights of interactions that tell a rare one from a common one."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from recfuse._inputs import as_csr
from recfuse._named import named
from recfuse._sparse import scaled_rows, squared_lengths

__all__ = ["bm25_weight", "tfidf_weight", "weighted"]


@named("tfidf_weight")
def tfidf_weight(user_items: Any) -> sp.csr_array:
    r"""Weight interactions by ``sqrt(r) * (log(n_items) - log1p(items of the user))``.

    Items are the documents and users the terms: a user who takes everything says little about any
    item. The weight of a user who has every item is below 0, as in the source.

    Parameters
    ----------
    user_items : sparse of shape (n_users, n_items)
        Counts, at least 0.

    Returns
    -------
    csr_array of shape (n_users, n_items), float32

    Raises
    ------
    ValueError
        If a value is negative or not finite.

    References
    ----------
    .. [1] `implicit.nearest_neighbours.tfidf_weight`, whose convention this is.
    """
    csr = _counts(user_items)
    _n_users, n_items = csr.shape
    idf = np.log(max(n_items, 1)) - np.log1p(np.diff(csr.indptr))
    data = np.sqrt(csr.data.astype(np.float64)) * np.repeat(idf, np.diff(csr.indptr))
    return sp.csr_array((data.astype(np.float32), csr.indices, csr.indptr), shape=csr.shape)


@named("bm25_weight")
def bm25_weight(user_items: Any, *, k1: float = 1.2, b: float = 0.75) -> sp.csr_array:
    r"""Weight interactions by Okapi BM25 [1]_ with items as documents and users as terms.

    ``r (k1 + 1) / (k1 (1 - b + b n_i / mean n) + r) * (log(n_items) - log1p(items of the user))``,
    where ``n_i`` is the sum of the item's interactions.

    Parameters
    ----------
    user_items : sparse of shape (n_users, n_items)
        Counts, at least 0.
    k1 : float, default=1.2
        How soon repetition stops to count.
    b : float, default=0.75
        How much popular items are held back, 0 to 1.

    Returns
    -------
    csr_array of shape (n_users, n_items), float32

    Raises
    ------
    ValueError
        If a value is negative or not finite, `k1` is negative or `b` is outside [0, 1].

    References
    ----------
    .. [1] S. Robertson, H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond",
       Foundations and Trends in Information Retrieval 3(4), 2009.
    """
    if not k1 >= 0:
        raise ValueError(f"bm25_weight: k1 must be at least 0; got {k1}")
    if not 0 <= b <= 1:
        raise ValueError(f"bm25_weight: b must be in [0, 1]; got {b}")
    csr = _counts(user_items)
    idf = np.log(max(csr.shape[1], 1)) - np.log1p(np.diff(csr.indptr))
    r = csr.data.astype(np.float64)
    lengths = np.bincount(csr.indices, weights=r, minlength=csr.shape[1])
    mean = lengths.mean() if lengths.any() else 1.0
    held_back = k1 * ((1 - b) + b * lengths / mean)[csr.indices]
    saturated = np.divide(r * (k1 + 1), held_back + r, out=np.zeros_like(r), where=r > 0)
    data = saturated * np.repeat(idf, np.diff(csr.indptr))
    return sp.csr_array((data.astype(np.float32), csr.indices, csr.indptr), shape=csr.shape)


def weighted(user_items: Any, weighting: str | None, *, k1: float, b: float) -> sp.csr_array:
    """Return `user_items` weighted by name: None, 'tfidf', 'bm25' or 'l2'."""
    if weighting is None:
        return as_csr(user_items, "user_items")
    if weighting == "tfidf":
        return tfidf_weight(user_items)
    if weighting == "bm25":
        return bm25_weight(user_items, k1=k1, b=b)
    if weighting == "l2":
        rows = as_csr(user_items, "user_items")
        return scaled_rows(rows, squared_lengths(rows), 0.5)
    raise ValueError(f"weighting must be None, 'tfidf', 'bm25' or 'l2'; got {weighting!r}")


def _counts(user_items: Any) -> sp.csr_array:
    csr = as_csr(user_items, "user_items")
    wrong = csr.data[~(np.isfinite(csr.data) & (csr.data >= 0))]
    if len(wrong):
        raise ValueError(f"user_items must be finite and at least 0 to be weighted; got {wrong[0]}")
    return csr
