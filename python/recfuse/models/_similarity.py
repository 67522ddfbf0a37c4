"""The similarity behind both neighbour models: cosine, and its asymmetric kin."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from recfuse._inputs import as_csr, as_float, as_int
from recfuse._sparse import scaled_rows, squared_lengths
from recfuse.ops import cosine_knn, neighbour_topk

__all__ = ["similarity"]

_COSINE = 0.5


def similarity(rows: Any, model: Any) -> sp.csr_array:
    """Return the nearest other rows of every row, best first, by the parameters of a model."""
    asymmetry = as_float(model.asymmetry, "asymmetry")
    if not 0 <= asymmetry <= 1:
        raise ValueError(f"asymmetry must be in [0, 1]; got {model.asymmetry}")
    how = {"device": model.device, "num_threads": model.num_threads}
    plain = {"norm": "full", "shrinkage": 0, "min_support": 1}
    given = {name: getattr(model, name) for name in plain}
    if asymmetry == _COSINE:
        return cosine_knn(sp.csr_array(rows), model.k, **given, **how)
    for name, value in given.items():
        if value != plain[name]:
            raise ValueError(
                f"{name} must be {plain[name]!r} where asymmetry is not {_COSINE}; got {value!r}"
            )
    return _asymmetric(as_csr(rows, "user_items"), model.k, asymmetry, **how)


def _asymmetric(rows: sp.csr_array, k: int, asymmetry: float, **how: Any) -> sp.csr_array:
    """Return `<a, b> / (|a|^(2 asymmetry) |b|^(2 - 2 asymmetry))`, kept for the k nearest b of a.

    It is a product of two sparse matrices, scaled: `neighbour_topk` never makes the whole of it.
    """
    n, squares = rows.shape[0], squared_lengths(rows)
    own, others = (scaled_rows(rows, squares, power) for power in (asymmetry, 1 - asymmetry))
    k = min(as_int(k, "k"), max(n - 1, 1))  # no row has more neighbours
    ids, scores = neighbour_topk(
        own, as_csr(others.T, "user_items"), k, exclude=sp.eye_array(n, format="csr"), **how
    )
    kept = ids >= 0
    indptr = np.append(0, np.cumsum(kept.sum(axis=1)))
    return sp.csr_array((scores[kept], ids[kept], indptr), shape=(n, n))
