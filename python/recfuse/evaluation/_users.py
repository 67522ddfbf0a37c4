"""The users of an evaluation, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._progress import progress
from recfuse.evaluation._ranking import without

__all__ = ["UsersWithItems"]


class UsersWithItems:
    """Those of `wanted` that have test items, which they have not seen where that counts."""

    def __init__(
        self, known: sp.csr_array, truth: sp.csr_array, wanted: Any, *, exclude_seen: bool
    ) -> None:
        self.known, self.truth, self.exclude_seen = known, truth, exclude_seen
        self.users = wanted[np.diff(truth.indptr)[wanted] > 0]
        self.n_evaluated = self.n_seen = 0  # so far

    def batches(
        self, batch_size: int, *, show_progress: bool
    ) -> Iterator[tuple[NDArray[Any], sp.csr_array, sp.csr_array]]:
        """Yield users, their test items and their history."""
        starts = range(0, len(self.users), batch_size)
        bar = progress(starts, description="evaluate", enabled=show_progress, total=len(starts))
        for start in bar:
            batch = self.users[start : start + batch_size]
            test_rows, rows = self.truth[batch], self.known[batch]
            if self.exclude_seen:
                n_before = test_rows.nnz
                test_rows = without(test_rows, rows)
                self.n_seen += n_before - test_rows.nnz
                left = np.flatnonzero(np.diff(test_rows.indptr))
                batch, test_rows, rows = batch[left], test_rows[left], rows[left]
            if len(batch):
                yield batch, test_rows, rows
                self.n_evaluated += len(batch)

    def n_candidates(self, rows: sp.csr_array) -> NDArray[Any]:
        """Return how many items users with this history can be recommended."""
        n_left_out = np.diff(rows.indptr) if self.exclude_seen else np.zeros(rows.shape[0], int)
        n: NDArray[Any] = self.known.shape[1] - n_left_out
        return n
