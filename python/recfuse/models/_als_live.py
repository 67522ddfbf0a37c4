"""What a fitted factorisation learns and says between fits: rows folded in, and why a score."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._base import check_fitted
from recfuse._inputs import as_csr, as_ids, check_ids, csr_parts
from recfuse._named import named
from recfuse.models._made import MadeOnce

__all__ = ["LiveFactors"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class LiveFactors(MadeOnce):
    """The part of `AlternatingLeastSquares` that works row by row, the other side being fixed."""

    factors: int
    regularization: float
    alpha: float
    objective: str
    biases: bool
    frequency_scaling: float
    num_threads: int
    user_factors_: Float32
    item_factors_: Float32
    user_biases_: Float32
    item_biases_: Float32
    global_mean_: float

    def _solver(self, csr: sp.csr_array) -> Any:
        raise NotImplementedError

    @named("fold_in")
    def fold_in(self, user_items: Any) -> Float32:
        """Solve for the factors of users that the model has not seen.

        Parameters
        ----------
        user_items : sparse of shape (n_rows, n_items)

        Returns
        -------
        ndarray of shape (n_rows, factors), float32

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Before `fit`; if the matrix does not fit the model.
        """
        check_fitted(self, "item_factors_")
        return self._fold_in(as_csr(user_items, "user_items"))[0]

    def _fold_in(self, user_items: sp.csr_array | None) -> tuple[Float32, Float32]:
        assert user_items is not None
        return self._solve_rows(user_items, "solver", self.item_factors_, self.item_biases_)

    def _solve_rows(
        self, rows: sp.csr_array, name: str, others: Float32, other_biases: Float32
    ) -> tuple[Float32, Float32]:
        """Return factors and biases of rows against the fixed other side, of users or of items."""

        def make() -> Any:
            solver = self._solver(sp.csr_array((0, len(others)), dtype=np.float32))
            none = np.zeros(0, np.float32)
            solver.set_factors(
                np.zeros((0, self.factors), np.float32),
                np.ascontiguousarray(others),
                none,
                np.ascontiguousarray(other_biases) if self.biases else none,
            )
            solver.global_mean = self.global_mean_
            return solver

        solver = self._made_once(name, others, make)
        factors, biases = solver.fold_in(csr_parts(rows), self.num_threads)
        return factors, biases if self.biases else np.zeros(len(factors), np.float32)

    @named("partial_fit_users")
    def partial_fit_users(self, user_ids: ArrayLike, user_items: Any) -> LiveFactors:
        """Solve for users again, or for new ones, the items staying as they are.

        Their factors become those of `fold_in`, byte for byte; all others are left alone. Items
        follow with `partial_fit_items`, and neither replaces a fit now and then: items learn
        nothing from the new events of users, nor users of those of items, until it is their turn.

        Parameters
        ----------
        user_ids : int or array-like of int
            Known ids are replaced; new ones must continue those of the model without a gap.
        user_items : sparse of shape (n_rows, n_items)
            The *whole* history of every user, not only what is new; row i is of ``user_ids[i]``.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError, TypeError, ValueError, IndexError
            Before `fit`; if an id repeats or leaves a gap; if the matrix does not fit the model.
            The model is then as it was.

        Examples
        --------
        >>> import numpy as np, scipy.sparse as sp, recfuse
        >>> likes = sp.csr_array(np.kron(np.eye(2), np.ones((4, 3))))
        >>> model = recfuse.AlternatingLeastSquares(factors=2, random_state=0).fit(likes)
        >>> model.partial_fit_users(8, likes[[0]]).user_factors_.shape
        (9, 2)
        """
        check_fitted(self, "item_factors_")
        rows = as_csr(user_items, "user_items")
        ids = continued_ids(user_ids, "user_ids", len(self.user_factors_), rows, "user_items")
        factors, biases = self._fold_in(rows)
        changed = (
            with_rows(self.user_factors_, ids, factors),
            with_rows(self.user_biases_, ids, biases),
        )
        self.user_factors_, self.user_biases_ = changed
        return self

    @named("partial_fit_items")
    def partial_fit_items(self, item_ids: ArrayLike, item_users: Any) -> LiveFactors:
        """Solve for items again, or for new ones, the users staying as they are.

        Parameters
        ----------
        item_ids : int or array-like of int
            Known ids are replaced; new ones must continue those of the model without a gap.
        item_users : sparse of shape (n_rows, n_users)
            All interactions of every item, by user: rows of the transposed matrix.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError, TypeError, ValueError, IndexError
            As `partial_fit_users`.
        """
        check_fitted(self, "item_factors_")
        rows = as_csr(item_users, "item_users")
        ids = continued_ids(item_ids, "item_ids", len(self.item_factors_), rows, "item_users")
        if rows.shape[1] != len(self.user_factors_):
            raise ValueError(
                f"item_users must have {len(self.user_factors_)} columns, one per user; "
                f"got {rows.shape[1]}"
            )
        factors, biases = self._solve_rows(
            rows, "item solver", self.user_factors_, self.user_biases_
        )
        changed = (
            with_rows(self.item_factors_, ids, factors),
            with_rows(self.item_biases_, ids, biases),
        )
        self.item_factors_, self.item_biases_ = changed
        return self

    @named("explain")
    def explain(self, user_items: Any, item_id: int) -> tuple[float, list[tuple[int, float]]]:
        r"""Split the score of an item into what each item of a history adds to it [1]_.

        With :math:`W = (\sum_j c_j y_j y_j^T + \lambda I)^{-1}` over all items, the score is

        .. math:: y_i^T x_u = \sum_j y_i^T W y_j \, c_j p_j

        so every liked item j adds its similarity to i, as this user weighs it, times its
        confidence. Where ratings are explicit, c is 1 over the rated items and p the rating, of
        which mean and item bias are taken off first.

        Parameters
        ----------
        user_items : sparse of shape (1, n_items)
        item_id : int

        Returns
        -------
        score : float
            That of the folded-in history, which `recommend` gives with ``recalculate_user=True``;
            computed in float64. With `biases`, mean and item bias are in it and in no share.
        shares : list of (int, float)
            Every item of the history and what it adds, the largest first, then by id.

        Raises
        ------
        NotFittedError, TypeError, ValueError, IndexError
            Before `fit`; if the history does not fit the model, or the id is unknown.

        References
        ----------
        .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative filtering for implicit feedback
           datasets", ICDM 2008, section 5.
        """
        check_fitted(self, "item_factors_")
        history = as_csr(user_items, "user_items")
        if history.shape != (1, len(self.item_factors_)):
            raise ValueError(
                f"user_items must have shape (1, {len(self.item_factors_)}); got {history.shape}"
            )
        item = check_ids(as_ids(item_id, "item_id"), len(self.item_factors_), "item_id")
        if len(item) != 1:
            raise ValueError(f"item_id must be one id; got {len(item)}")
        target = self.item_factors_[item[0]].astype(np.float64)
        if self.biases:
            target = np.append(target, 1.0)
        added = self.user_parts(history) @ target
        base = self.global_mean_ + float(self.item_biases_[item[0]]) if self.biases else 0.0
        order = np.lexsort((history.indices, -added))
        shares = [(int(history.indices[j]), float(added[j])) for j in order]
        return base + float(added.sum()), shares

    def user_parts(self, history: sp.csr_array) -> Float64:
        """Return what each item of one history adds to the user's factors (and bias, last).

        The rows (entries of `history`, factors) sum up to the exact solution of `fold_in`.
        """
        liked, values = history.indices, history.data.astype(np.float64)
        if self.objective == "implicit":
            y = self.item_factors_.astype(np.float64)
            frequency = self.alpha * len(liked) + len(y)
            extra = self.alpha * np.abs(values)
            system = y.T @ y + (y[liked] * extra[:, None]).T @ y[liked]
            targets = (1 + extra) * (values > 0)
            rows = y[liked]
        else:
            rows = self.item_factors_[liked].astype(np.float64)
            targets = values - self.global_mean_ - self.item_biases_[liked].astype(np.float64)
            if self.biases:
                rows = np.hstack([rows, np.ones((len(rows), 1))])
            frequency = float(len(liked))
            system = rows.T @ rows
        if len(liked) == 0:
            return np.zeros((0, rows.shape[1]))
        penalty = self.regularization * frequency**self.frequency_scaling
        system[np.diag_indices_from(system)] += penalty
        parts: Float64 = np.linalg.solve(system, (rows * targets[:, None]).T).T
        return parts


def continued_ids(
    given: ArrayLike, name: str, n: int, rows: sp.csr_array, rows_name: str
) -> NDArray[np.int64]:
    """Return ids that are known or continue the known ones without a gap, one per row."""
    ids = as_ids(given, name)
    if len(ids) != rows.shape[0]:
        raise ValueError(f"{rows_name} must have one row per id ({len(ids)}); got {rows.shape[0]}")
    distinct = np.unique(ids)
    if len(distinct) != len(ids):
        raise ValueError(f"{name} must not repeat; got {ids.tolist()}")
    new = distinct[distinct >= n]
    if not np.array_equal(new, np.arange(n, n + len(new))):
        raise IndexError(f"{name} must be known or continue at {n} without a gap; got {new[-1]}")
    return check_ids(ids, n + len(new), name)


def with_rows(old: Float32, ids: NDArray[np.int64], rows: Float32) -> Float32:
    """Return a copy of `old` with rows replaced or appended."""
    n = max(len(old), int(ids.max(initial=-1)) + 1)
    out = np.zeros((n, *old.shape[1:]), np.float32)
    out[: len(old)] = old
    out[ids] = rows
    return out
