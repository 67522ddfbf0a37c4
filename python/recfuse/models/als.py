"""Matrix factorisation by alternating least squares."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._base import check_fitted
from recfuse._index_ranks import PairRanks
from recfuse._inputs import (
    as_csr,
    as_float,
    as_ids,
    as_int,
    as_matrix,
    as_num_threads,
    as_rng,
    check_ids,
    csr_parts,
)
from recfuse._named import named
from recfuse._progress import progress
from recfuse._retrieval import Modality, Part, Retrieval, Vectors
from recfuse.backend import resolve_backend, resolve_op
from recfuse.index import FusedIndex
from recfuse.models._als_live import LiveFactors
from recfuse.models._requests import filter_rows, left_out, rows_of_users

__all__ = ["AlternatingLeastSquares"]

Float32 = NDArray[np.float32]
Ids = NDArray[np.int32]
Scores = NDArray[np.float32]
Callback = Callable[[int, float, "float | None"], Any]

_WEIGHT = np.ones((1, 1))  # of the only modality
_PAIRS = 1 << 16  # scored at a time: their user vectors are copied


class AlternatingLeastSquares(LiveFactors):
    r"""Factorise interactions into vectors of users and items.

    With ``objective='implicit'`` [1]_, over all pairs:

    .. math:: \min \sum_{u,i} c_{ui} (p_{ui} - x_u \cdot y_i)^2
              + \sum_u \lambda_u |x_u|^2 + \sum_i \lambda_i |y_i|^2

    with confidence :math:`c = 1 + \alpha |r|` and preference :math:`p = 1` where :math:`r > 0`,
    0 where :math:`r \le 0` (a stored negative is a dislike) on stored entries, and
    :math:`c = 1, p = 0` elsewhere. With ``objective='explicit'`` [2]_, over stored entries only:

    .. math:: \min \sum_{(u,i)} (r_{ui} - \mu - b_u - b_i - x_u \cdot y_i)^2
              + \sum_u \lambda_u (|x_u|^2 + b_u^2) + \sum_i \lambda_i (|y_i|^2 + b_i^2)

    where :math:`\mu = b = 0` unless `biases`. The regularization is :math:`\lambda_u = \lambda`,
    or with frequency scaling :math:`\nu` [3]_ :math:`\lambda n_u^\nu` (explicit) and
    :math:`\lambda (\alpha n_u + n_{items})^\nu` (implicit), the same with users for items.

    Parameters
    ----------
    factors : int, default=64
    regularization : float, default=0.01
        :math:`\lambda`, at least 0. The default is too small for ratings: see Notes.
    alpha : float, default=1.0
        Confidence per unit of interaction; implicit only.
    iterations : int, default=15
        Each solves for all users, then for all items.
    objective : {'implicit', 'explicit'}, default='implicit'
    solver : {'auto', 'cholesky', 'cg', 'block'}, default='auto'
        'cholesky' solves every row exactly, 'cg' by `cg_steps` preconditioned conjugate-gradient
        steps from the row's present factors, 'block' (iALS++ [4]_) by one round over blocks of 64
        factors; 'auto' is the one that is predicted to lower the objective soonest, from the
        lengths of all rows, `factors` and `cg_steps`: see `solver_`.
    biases : bool, default=False
        Learn a mean and biases of users and items; explicit only. Ratings want them.
    frequency_scaling : float, default=0.0
        :math:`\nu`. With 1, `regularization` wants to be smaller by orders of magnitude.
    cg_steps : int, default=2
        Up to 4 work on factors rounded to bfloat16 where that moves the objective by less than
        2^-16 of itself; more, in float32 throughout.
    compute_loss : bool, default=False
        Evaluate the objective after every iteration, for `loss_` and the callback.
    random_state : int, Generator or None, default=None
        Of the starting factors, which are normal with deviation ``0.1 / sqrt(factors)``.
    device : {'auto', 'cpu', 'cuda'} or GPUs by number, default='auto'
        On 'cuda', 'auto' stands for the solver that a GPU is predicted to finish with soonest,
        and 'cg' works in float32 throughout. Up to 2,048 factors; not verified on a device yet.
        'cuda:0,1' divides the rows among two GPUs, with the bytes of one.
    device_bytes : int or None, default=None
        Of each GPU's memory a fit takes no more; None: than is free there. Interactions that have
        no room beside the factors stay in host memory, 16 bytes each that the system cannot swap,
        and pass through the GPU in every iteration, with the same bytes of factors and loss.
        `plan_memory` says beforehand what fits. Not verified on a device yet.
    num_threads : int, default=0
        The factors do not depend on it.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, factors), float32
        Zeros for a user without interactions.
    item_factors_ : ndarray of shape (n_items, factors), float32
    user_biases_, item_biases_ : ndarray of shape (n_users,) and (n_items,), float32
        Zeros without `biases`.
    global_mean_ : float
        0 without `biases`.
    loss_ : list of float
        The objective after every iteration, if `compute_loss`.
    solver_ : {'cholesky', 'cg', 'block'}
        The solver of the fit: what 'auto' stood for.
    n_iter_ : int
        Iterations finished: fewer than `iterations` after Ctrl-C or a callback that stops.
    float64_rows_ : int
        Systems that were solved again in float64, because float32 could not hold a pivot.

    Notes
    -----
    The defaults suit clicks, plays and purchases. For ratings, begin with ``objective='explicit',
    biases=True, regularization=10`` and tune the last: on MovieLens (small, 64 factors) the RMSE of
    later ratings is 1.61 with nothing but the objective changed, 1.08 with biases and 0.90 with
    both; the mean of all ratings has 1.07 (``docs/choosing.md``).

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative filtering for implicit feedback datasets",
       ICDM 2008.
    .. [2] Y. Koren, R. Bell, C. Volinsky, "Matrix factorization techniques for recommender
       systems", IEEE Computer 42(8), 2009.
    .. [3] S. Rendle, W. Krichene, L. Zhang, Y. Koren, "Revisiting the performance of iALS on item
       recommendation benchmarks", RecSys 2022. Their ``reg (n_u + alpha0 n_items)^nu`` is this
       one after division of the objective by ``alpha = 1 / alpha0``.
    .. [4] S. Rendle, W. Krichene, L. Zhang, Y. Koren, "iALS++: Speeding up matrix factorization
       with subspace optimization", 2021.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, recfuse
    >>> likes = sp.csr_array(np.kron(np.eye(2), np.ones((4, 3))))
    >>> model = recfuse.AlternatingLeastSquares(factors=2, random_state=0).fit(likes)
    >>> sorted(model.recommend(0, k=3)[0][0].tolist())
    [0, 1, 2]
    """

    def __init__(
        self,
        factors: int = 64,
        *,
        regularization: float = 0.01,
        alpha: float = 1.0,
        iterations: int = 15,
        objective: str = "implicit",
        solver: str = "auto",
        biases: bool = False,
        frequency_scaling: float = 0.0,
        cg_steps: int = 2,
        compute_loss: bool = False,
        random_state: int | np.random.Generator | None = None,
        device: str = "auto",
        device_bytes: int | None = None,
        num_threads: int = 0,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.alpha = alpha
        self.iterations = iterations
        self.objective = objective
        self.solver = solver
        self.biases = biases
        self.frequency_scaling = frequency_scaling
        self.cg_steps = cg_steps
        self.compute_loss = compute_loss
        self.random_state = random_state
        self.device = device
        self.device_bytes = device_bytes
        self.num_threads = num_threads

    @named("als")
    def fit(
        self,
        user_items: Any,
        y: Any = None,
        *,
        callback: Callback | None = None,
        show_progress: bool = False,
    ) -> AlternatingLeastSquares:
        """Learn the factors, from new starting values.

        Another exception of the callback, or Ctrl-C, ends the fit after the iteration in progress:
        the model keeps the factors of that iteration, and the exception goes on.

        Parameters
        ----------
        user_items : sparse of shape (n_users, n_items), or Interactions
        callback : callable, optional
            Called with (iteration from 1, seconds it took, loss or None) after every iteration. The
            model answers by then with the factors of that iteration. Where it raises
            StopIteration, the fit is complete.
        show_progress : bool, default=False

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, a value is not finite, or a system is singular
            (`regularization` 0).
        MemoryError
            If a GPU has not got the memory, with streamed interactions either: it says how much is
            asked and how much there is.
        """
        csr = as_csr(user_items, "user_items")
        iterations = as_int(self.iterations, "iterations")
        if iterations < 1:
            raise ValueError(f"als: iterations must be at least 1; got {iterations}")
        solver = self._solver(csr)
        solver.set_factors(*self._start(csr.shape))
        losses: list[float] = []
        try:
            bar = progress(range(iterations), description="als", enabled=show_progress)
            for iteration in bar:
                started = time.perf_counter()
                solver.step(self.num_threads)
                if self.compute_loss:
                    losses.append(solver.loss(self.num_threads))
                if callback is not None:
                    seconds = time.perf_counter() - started
                    self._learn(solver, losses)  # for callbacks that look how good it is
                    try:
                        callback(iteration + 1, seconds, losses[-1] if losses else None)
                    except StopIteration:
                        break
        finally:
            # Python raises KeyboardInterrupt between steps. After an error of the solver there are
            # no finished steps: rows of two iterations are side by side.
            if solver.finished_steps > 0:
                self._learn(solver, losses)
        return self

    def _start(self, shape: tuple[int, int]) -> tuple[Float32, Float32, Float32, Float32]:
        """Return starting factors of users and items, the same on every device, and no biases."""
        rng = as_rng(self.random_state)
        scale = np.float32(0.1 / np.sqrt(self.factors))
        items, users = (
            rng.standard_normal((n, self.factors), np.float32) * scale for n in shape[::-1]
        )
        none = np.zeros(0, np.float32)
        return users, items, none, none

    def _solver(self, csr: sp.csr_array) -> Any:
        return resolve_op("AlsSolver", self.device)(
            csr_parts(csr),
            objective=self.objective,
            solver=self.solver,
            factors=as_int(self.factors, "factors"),
            regularization=as_float(self.regularization, "regularization"),
            alpha=as_float(self.alpha, "alpha"),
            frequency_scaling=as_float(self.frequency_scaling, "frequency_scaling"),
            biases=bool(self.biases),
            cg_steps=as_int(self.cg_steps, "cg_steps"),
            num_threads=as_num_threads(self.num_threads),
            **self._room(),
        )

    def _room(self) -> dict[str, int]:
        """Return what a device is told of its memory, and the CPU is not."""
        if self.device_bytes is None:
            return {}
        n_bytes = as_int(self.device_bytes, "device_bytes")
        if resolve_backend(self.device).device == "cpu":
            raise ValueError(f"device_bytes must be None on the CPU; got {n_bytes}")
        return {"device_bytes": n_bytes}

    def _learn(self, solver: Any, losses: list[float]) -> None:
        users, items, user_biases, item_biases = solver.factors()
        self.user_factors_, self.item_factors_ = users, items
        self.user_biases_ = user_biases if self.biases else np.zeros(len(users), np.float32)
        self.item_biases_ = item_biases if self.biases else np.zeros(len(items), np.float32)
        self.global_mean_ = float(solver.global_mean)
        self.loss_, self.solver_ = losses, solver.solver
        self.n_iter_, self.float64_rows_ = solver.finished_steps, solver.float64_rows

    def _index(self, name: str, factors: Float32, metric: str) -> FusedIndex:
        def make() -> FusedIndex:
            vectors = self._item_vectors() if metric == "dot" else np.ascontiguousarray(factors)
            return FusedIndex(
                {"factors": vectors},
                metric=metric,
                device=self.device,
                num_threads=self.num_threads,
            )

        index: FusedIndex = self._made_once(name, factors, make)
        return index

    def _scores(self) -> FusedIndex:
        return self._index("scores", self.item_factors_, "dot")

    def _item_vectors(self) -> Float32:
        """Item vectors whose products with `_user_vectors` are scores, biases and all."""
        if not self.biases:
            return np.ascontiguousarray(self.item_factors_)
        ones = np.ones((len(self.item_factors_), 1), np.float32)
        return np.hstack([self.item_factors_, self.item_biases_[:, None], ones])

    def _user_vectors(self, factors: Float32, biases: Float32) -> dict[str, Float32]:
        if self.biases:
            ones = np.ones((len(factors), 1), np.float32)
            offsets = (self.global_mean_ + biases.astype(np.float64)).astype(np.float32)
            factors = np.hstack([factors, ones, offsets[:, None]])
        return {"factors": factors}

    def _retrieval(self) -> Retrieval:
        check_fitted(self, "item_factors_")
        items, users = [Part(self.item_factors_)], [Part(self.user_factors_)]
        if self.biases:  # the columns of `_item_vectors` and `_user_vectors`
            items += [Part(self.item_biases_), Part(constant=1.0)]
            users += [Part(constant=1.0), Part(self.user_biases_, plus=self.global_mean_)]
        factors = Modality(
            "factors",
            Vectors(tuple(items)),
            Vectors(tuple(users)),
            Vectors.of(self.item_factors_) if self.biases else None,
        )
        return Retrieval(
            (factors,), options={"device": self.device, "num_threads": self.num_threads}
        )

    def _holds_retrieval(self) -> bool:
        factors = (self.item_factors_, self.user_factors_)
        return all(matrix.dtype == np.float32 and matrix.ndim == 2 for matrix in factors)

    @named("recommend")
    def recommend(
        self,
        user_ids: ArrayLike,
        k: int = 10,
        *,
        user_items: Any = None,
        exclude: Any = None,
        allow: Any = None,
        recalculate_user: bool = False,
    ) -> tuple[Ids, Scores]:
        """Recommend items to users.

        Parameters
        ----------
        user_ids : int or array-like of int
        k : int, default=10
        user_items : sparse of shape (n, n_items), optional
            Histories of the queried users, one row each: left out of the lists.
        exclude : sparse of shape (n, n_items), optional
        allow : array-like of int, or sparse of shape (n, n_items), optional
        recalculate_user : bool, default=False
            Solve for the factors of `user_items` instead of taking those of the fit; `user_ids`
            may then be unknown to the model.

        Returns
        -------
        ids : ndarray of shape (n, k), int32
            Score descending, then id ascending; -1 for padding.
        scores : ndarray of shape (n, k), float32
            Inner products, or predicted ratings with `biases`; -inf for padding.

        Raises
        ------
        NotFittedError, IndexError, ValueError
            Before `fit`; if a user is unknown; if a shape is wrong.
        """
        check_fitted(self, "item_factors_")
        if recalculate_user:
            if user_items is None:
                raise ValueError(
                    "user_items must be given where recalculate_user is True; got None"
                )
            users = as_ids(user_ids, "user_ids")
        else:
            users = rows_of_users(user_ids, len(self.user_factors_))
        shape = (len(users), len(self.item_factors_))
        excluded = left_out(user_items, exclude, shape)
        if recalculate_user:
            factors, biases = self._fold_in(filter_rows(user_items, "user_items", shape))
        else:
            factors, biases = self.user_factors_[users], self.user_biases_[users]
        # What a search by name would check again is all made here.
        ids, scores = self._scores()._search(
            [as_matrix(v, "user_factors_") for v in self._user_vectors(factors, biases).values()],
            _WEIGHT,
            k,
            fusion="sum",
            missing="renormalise",
            exclude=None if excluded is None else csr_parts(excluded),
            allow=allow,
            contributions=False,
        )
        return ids, scores

    @named("rank_items")
    def rank_items(
        self, user_ids: ArrayLike, items: Any, *, user_items: Any = None, exclude: Any = None
    ) -> PairRanks:
        """Rank given items among all, for every user: their places in `recommend`, without lists.

        Parameters
        ----------
        user_ids : int or array-like of int
        items : sparse of shape (n, n_items)
            The stored entries are ranked, row by row in ascending order of the item.
        user_items, exclude : sparse of shape (n, n_items), optional
            Left out, as in `recommend`.

        Returns
        -------
        PairRanks
            As `FusedIndex.rank_pairs`, on the device of the model.

        Raises
        ------
        NotFittedError, TypeError, IndexError, ValueError
            As `recommend`.
        """
        check_fitted(self, "item_factors_")
        users = rows_of_users(user_ids, len(self.user_factors_))
        shape = (len(users), len(self.item_factors_))
        queries = self._user_vectors(self.user_factors_[users], self.user_biases_[users])
        return self._scores().rank_pairs(
            queries,
            filter_rows(items, "items", shape),
            exclude=left_out(user_items, exclude, shape),
        )

    @named("predict")
    def predict(self, user_ids: ArrayLike, item_ids: ArrayLike) -> Scores:
        """Predict the scores (ratings, where explicit) of pairs: the very scores of `recommend`.

        Parameters
        ----------
        user_ids, item_ids : int or array-like of int, of one length

        Returns
        -------
        ndarray of shape (n,), float32

        Raises
        ------
        NotFittedError, IndexError, ValueError
            Before `fit`; if an id is unknown; if the lengths differ.
        """
        check_fitted(self, "item_factors_")
        users = rows_of_users(user_ids, len(self.user_factors_))
        items = check_ids(as_ids(item_ids, "item_ids"), len(self.item_factors_), "item_ids")
        if len(users) != len(items):
            raise ValueError(f"item_ids must have one id per user ({len(users)}); got {len(items)}")
        scores = np.empty(len(users), np.float32)
        for first in range(0, len(users), _PAIRS):
            part = slice(first, first + _PAIRS)
            rows, columns = users[part], items[part]
            pairs = _one_per_row(columns, len(self.item_factors_))
            queries = self._user_vectors(self.user_factors_[rows], self.user_biases_[rows])
            scores[part] = self._scores().score_pairs(queries, pairs)[0]
        return scores

    @named("similar_items")
    def similar_items(self, item_ids: ArrayLike, k: int = 10) -> tuple[Ids, Scores]:
        """Find the other items with the largest cosine between factors.

        Parameters
        ----------
        item_ids : int or array-like of int
        k : int, default=10

        Returns
        -------
        ids : ndarray of shape (n, k), int32
            Without the item itself; score descending, then id ascending; -1 for padding.
        scores : ndarray of shape (n, k), float32

        Raises
        ------
        NotFittedError, IndexError, ValueError
            Before `fit`; if an id is unknown; if `k` < 1.
        """
        check_fitted(self, "item_factors_")
        return self._similar(self.item_factors_, item_ids, "item_ids", k)

    @named("similar_users")
    def similar_users(self, user_ids: ArrayLike, k: int = 10) -> tuple[Ids, Scores]:
        """Find the other users with the largest cosine between factors; as `similar_items`."""
        check_fitted(self, "user_factors_")
        return self._similar(self.user_factors_, user_ids, "user_ids", k)

    def _similar(self, factors: Float32, ids: ArrayLike, name: str, k: int) -> tuple[Ids, Scores]:
        rows = check_ids(as_ids(ids, name), len(factors), name)
        index = self._index(name, factors, "cosine")
        itself = _one_per_row(rows, len(factors))
        similar, scores = index.topk({"factors": factors[rows]}, k, exclude=itself)
        return similar, scores


def _one_per_row(columns: NDArray[np.int64], n_columns: int) -> sp.csr_array:
    ones, indptr = np.ones(len(columns), np.float32), np.arange(len(columns) + 1)
    return sp.csr_array((ones, columns, indptr), shape=(len(columns), n_columns))
