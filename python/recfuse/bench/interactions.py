"""Generated interactions among a case's inputs, as the arrays of a CSR matrix."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.bench.case import Inputs
from recfuse.datasets import synthetic

__all__ = ["draw_interactions", "user_items"]


@functools.lru_cache(maxsize=1)  # cases of one op differ in factors or lists alone
def draw_interactions(n_users: int, n_items: int, nnz: int, seed: int) -> dict[str, NDArray[Any]]:
    """Draw ratings from 1 to 5, long tails, a planted low rank: `recfuse.datasets.synthetic`."""
    data = synthetic(n_users, n_items, nnz, random_state=seed, modalities={})
    matrix = data.interactions.to_csr()
    return {
        "indptr": matrix.indptr,
        "indices": matrix.indices,
        "values": matrix.data,
        "shape": np.array(matrix.shape),
    }


def user_items(inputs: Inputs) -> sp.csr_array:
    """Return them as a matrix of shape (n_users, n_items)."""
    shape = tuple(int(n) for n in inputs["shape"])
    return sp.csr_array((inputs["values"], inputs["indices"], inputs["indptr"]), shape=shape)
