"""Alternating least squares under implicit's name, arguments and objective."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import as_int
from recfuse.backend import resolve_backend
from recfuse.compat.implicit import _confidence
from recfuse.compat.implicit._files import load_factors, save_factors
from recfuse.compat.implicit._progress import shown
from recfuse.compat.implicit.cpu._solving import (
    calculate_loss,
    least_squares,
    least_squares_cg,
    of_width,
    starting_factors,
)
from recfuse.compat.implicit.cpu.matrix_factorization_base import (
    MatrixFactorizationBase,
    _learned,
    _rows,
)
from recfuse.compat.implicit.utils import check_csr, check_random_state

__all__ = ["AlternatingLeastSquares", "calculate_loss", "least_squares", "least_squares_cg"]

_log = logging.getLogger("implicit")

Lists = tuple[NDArray[Any], NDArray[Any]]


class AlternatingLeastSquares(MatrixFactorizationBase):
    r"""Factorise interactions as implicit does.

    .. math:: \min \sum_{u,i} |c_{ui}| (p_{ui} - x_u \cdot y_i)^2
              + \lambda (\sum_u |x_u|^2 + \sum_i |y_i|^2)

    with :math:`c = \alpha r` on stored entries and 1 elsewhere, :math:`p = 1` where
    :math:`c > 0` and 0 elsewhere [1]_.

    Parameters
    ----------
    factors : int, default=100
    regularization : float, default=0.01
    alpha : float, default=1.0
    dtype : data-type, default=numpy.float32
        Of the factors: float32 or float64. They are solved for in float32, systems that this does
        not hold in float64.
    use_native : bool, default=True
        Ignored: there is one solver, and it is compiled.
    use_cg : bool, default=True
        Solve by what lowers the objective soonest: `cg_steps` steps of preconditioned conjugate
        gradients, or exactly; else always exactly.
    iterations : int, default=15
    calculate_training_loss : bool, default=False
    num_threads : int, default=0
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None, default=None
        Of the starting factors, which are implicit's for the same seed.

    Attributes
    ----------
    user_factors, item_factors : ndarray
        As `MatrixFactorizationBase`. `fit` continues from them where they are set.
    cg_steps : int
    fit_callback : callable or None
        Called after every iteration where `fit` gets no other.

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative filtering for implicit feedback datasets",
       ICDM 2008.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from recfuse.compat.implicit.als import AlternatingLeastSquares
    >>> likes = sp.csr_matrix(np.kron(np.eye(2), np.ones((4, 3))))
    >>> model = AlternatingLeastSquares(factors=2, random_state=0)
    >>> model.fit(likes, show_progress=False)
    >>> ids, scores = model.recommend(0, likes[0], N=3, filter_already_liked_items=False)
    >>> sorted(ids.tolist())
    [0, 1, 2]
    """

    def __init__(
        self,
        factors: int = 100,
        regularization: float = 0.01,
        alpha: float = 1.0,
        dtype: Any = np.float32,
        use_native: bool = True,
        use_cg: bool = True,
        iterations: int = 15,
        calculate_training_loss: bool = False,
        num_threads: int = 0,
        random_state: Any = None,
    ) -> None:
        super().__init__(num_threads=num_threads)
        self.factors = factors
        self.regularization = regularization
        self.alpha = alpha
        self.dtype = np.dtype(dtype)
        self.use_native = use_native
        self.use_cg = use_cg
        self.iterations = iterations
        self.calculate_training_loss = calculate_training_loss
        self.fit_callback: Callable[..., Any] | None = None
        self.cg_steps = 3
        self.random_state = random_state
        self._YtY: Any = None
        self._XtX: Any = None

    def fit(self, user_items: Any, show_progress: bool = True, callback: Any = None) -> None:
        """Learn the factors, on from those that the model has.

        Ctrl-C, or an exception of the callback, leaves the factors of the last whole iteration.

        Parameters
        ----------
        user_items : csr_matrix of shape (n_users, n_items)
            Strengths of interactions; a negative one is a dislike.
        show_progress : bool, default=True
            Where tqdm is installed.
        callback : callable, optional
            Called with (iteration from 0, seconds it took, loss or None) after every iteration.

        Raises
        ------
        ModelFitError, ValueError, TypeError
            If a value is not finite, an argument is wrong, or factors that are set do not fit.
        """
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"als: dtype must be float32 or float64; got {self.dtype}")
        csr = _confidence.confidences(check_csr(user_items), self.alpha)
        started_from = self._start(csr.shape)
        solver = self._fit_solver(csr)
        loss = None
        iterations = range(as_int(self.iterations, "iterations"))
        try:
            for iteration in shown(iterations, description="als", enabled=show_progress):
                started = time.perf_counter()
                solver.step(self._threads)
                if self.calculate_training_loss:
                    loss = _confidence.per_pair(solver.loss(self._threads), csr)
                    _log.info("loss %.4f", loss)
                report = callback or self.fit_callback
                if report:
                    self._learn(solver)  # for callbacks that look how good it is
                    report(iteration, time.perf_counter() - started, loss)
        finally:
            # After an error of the solver rows of two iterations are side by side: not to be kept.
            if solver.finished_steps > 0:
                self._learn(solver, *started_from)
        self._check_fit_errors()

    def _start(self, shape: tuple[int, int]) -> list[NDArray[np.float32] | None]:
        """Set factors that are None; return those that nobody else has and the solver can fill."""
        rng = check_random_state(self.random_state)
        fresh: list[NDArray[np.float32] | None] = []
        for name, n in zip(("user_factors", "item_factors"), shape, strict=True):
            factors = getattr(self, name)
            if factors is None:
                factors = starting_factors(rng, (n, self.factors), self.dtype)
                setattr(self, name, factors)
                fresh.append(factors if self.dtype == np.float32 else None)
            elif factors.shape != (n, self.factors):
                raise ValueError(
                    f"als: {name} must have shape {(n, self.factors)}, from which fit goes on; got "
                    f"{factors.shape}. Set it to None to start anew."
                )
            else:
                fresh.append(None)
        return fresh

    def _fit_solver(self, csr: sp.csr_array) -> Any:
        how: dict[str, Any] = {"device": self._device, "num_threads": self._threads}
        steps = as_int(self.cg_steps, "cg_steps") if self.use_cg else 0
        if steps:
            how |= {"solver": _confidence.cg_or_auto(self.regularization), "cg_steps": steps}
        solver = _confidence.make_solver(csr, self.factors, self.regularization, **how)
        none = np.zeros(0, np.float32)
        start = (
            np.ascontiguousarray(f, np.float32) for f in (self.user_factors, self.item_factors)
        )
        solver.set_factors(*start, none, none)
        return solver

    def _learn(self, solver: Any, *into: NDArray[np.float32] | None) -> None:
        users, items = (f.astype(self.dtype, copy=False) for f in solver.factors(*into)[:2])
        self.user_factors, self.item_factors = users, items
        self._user_norms = self._item_norms = self._XtX = self._YtY = None

    def recalculate_user(self, userid: Any, user_items: Any) -> NDArray[Any]:
        """Return the exact factors of users from their histories; nothing is stored.

        Parameters
        ----------
        userid : int or array-like of int
            Its length alone counts: the users may be unknown to the model.
        user_items : csr_matrix
            One row per user.

        Returns
        -------
        ndarray of shape (factors,) or (n, factors)
        """
        return self._recalculate(userid, user_items, self.item_factors, "user")

    def recalculate_item(self, itemid: Any, item_users: Any) -> NDArray[Any]:
        """Return the exact factors of items from their users; as `recalculate_user`."""
        return self._recalculate(itemid, item_users, self.user_factors, "item")

    def _recalculate(self, ids: Any, rows: Any, others: Any, side: str) -> NDArray[Any]:
        name = "user_items" if side == "user" else "item_users"
        n_rows, n_others = 1 if np.isscalar(ids) else len(ids), len(_learned(others))
        csr = _confidence.confidences(check_csr(rows), self.alpha, name)
        if csr.shape[0] != n_rows:
            raise ValueError(
                f"{name} should have one row for every {side} in {side}; got {csr.shape}"
            )
        csr = of_width(csr, n_others, name)
        factors = self._half_step(csr, others, side).astype(self.dtype, copy=False)
        return factors[0] if np.isscalar(ids) else factors

    def _half_step(self, csr: sp.csr_array, others: NDArray[Any], side: str) -> NDArray[np.float32]:
        def make() -> Any:
            return _confidence.Folder(others, self.regularization, self._device, self._threads)

        key = (others, self.regularization, self._threads, self._device)
        folder: _confidence.Folder = self._made_once(f"{side} solver", key, make)
        return folder.solve(csr)

    def partial_fit_users(self, userids: Any, user_items: Any) -> None:
        """Solve for users again, or for new ones, and store their factors.

        Parameters
        ----------
        userids : array-like of int
            Ids between the known ones and new ones get zeros.
        user_items : csr_matrix
            The whole history of every user, one row each.
        """
        self._partial_fit("user", userids, user_items)
        self._user_norms = self._XtX = None

    def partial_fit_items(self, itemids: Any, item_users: Any) -> None:
        """Solve for items again, or for new ones; as `partial_fit_users`."""
        self._partial_fit("item", itemids, item_users)
        self._item_norms = self._YtY = None

    def _partial_fit(self, side: str, ids: Any, rows: Any) -> None:
        if len(ids) != rows.shape[0]:
            names = "user_items", "userids" if side == "user" else "item_users", "itemids"
            raise ValueError(f"{names[0]} must contain 1 row for every user in {names[1]}")
        at = np.asarray(ids)
        if at.dtype.kind not in "iu" or (at.size and at.min() < 0):
            raise IndexError(f"{side}ids must be integers from 0 on; got {ids!r}")
        if not len(at):
            return
        fresh = getattr(self, f"recalculate_{side}")(at, rows)
        known = getattr(self, f"{side}_factors")
        n = int(at.max()) + 1
        if n > len(known):
            more = np.zeros((n - len(known), known.shape[1]), known.dtype)
            known = np.concatenate([known, more])
        elif not known.flags.writeable:  # somebody searches it
            known = known.copy()
        known[at] = fresh
        self._forget(f"{side}_factors")
        setattr(self, f"{side}_factors", known)

    def explain(
        self, userid: int, user_items: Any, itemid: int, user_weights: Any = None, N: int = 10
    ) -> tuple[float, list[tuple[int, float]], Any]:
        r"""Split the score of an item into what each liked item adds to it [1]_.

        .. math:: y_i^T x_u = \sum_j (y_i^T W y_j)\, c_j, \quad
                  W = (Y^T Y + \lambda I + \sum_j (|c_j| - 1) y_j y_j^T)^{-1}

        Parameters
        ----------
        userid : int
            The row of `user_items`.
        user_items : csr_matrix
            Histories of all users.
        itemid : int
        user_weights : tuple, optional
            What an earlier call for this user returned, which saves most of the work.
        N : int, default=10
            How many contributions to return.

        Returns
        -------
        total_score : float
        top_contributions : list of (int, float)
            Item and contribution, the largest first.
        user_weights : tuple
            The Cholesky factor of the inverse of W, as of `scipy.linalg.cho_factor`.

        References
        ----------
        .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative filtering for implicit feedback
           datasets", ICDM 2008, section 5.
        """
        from scipy.linalg import cho_factor, cho_solve

        n_items = len(_learned(self.item_factors))
        csr = check_csr(user_items)
        if not 0 <= userid < csr.shape[0]:
            raise IndexError(f"userid must be a row of user_items, {csr.shape[0]}; got {userid}")
        history = _confidence.confidences(csr[[userid]], self.alpha)
        history = of_width(history, n_items, "user_items")
        if user_weights is None:
            user_weights = cho_factor(
                _confidence.system(
                    history.indices, history.data, self.item_factors, self.regularization
                )
            )
        target = _rows(self.item_factors, itemid, "itemid")[0]
        weighted = cho_solve(user_weights, target.astype(np.float64))
        liked = history.data > 0
        ids = history.indices[liked]
        added = (self.item_factors[ids] @ weighted) * history.data[liked]
        order = np.lexsort((-ids, -added))[:N]
        return float(added.sum()), [(int(ids[j]), float(added[j])) for j in order], user_weights

    @property
    def solver(self) -> Callable[..., None]:
        """What solves for one side in place: ``solver(Cui, X, Y, regularization, num_threads)``."""
        if self.use_cg:
            return functools.partial(least_squares_cg, cg_steps=self.cg_steps)
        return least_squares

    @property
    def YtY(self) -> NDArray[Any]:
        """The Gram matrix of the items' factors."""
        if self._YtY is None:
            self._YtY = self.item_factors.T @ self.item_factors
        gram: NDArray[Any] = self._YtY
        return gram

    @property
    def XtX(self) -> NDArray[Any]:
        """The Gram matrix of the users' factors."""
        if self._XtX is None:
            self._XtX = self.user_factors.T @ self.user_factors
        gram: NDArray[Any] = self._XtX
        return gram

    def to_gpu(self) -> AlternatingLeastSquares:
        """Return this model with its searches and fits on a GPU; factors stay NumPy arrays.

        Raises
        ------
        DeviceError
            If there is no usable GPU; the message says why.
        """
        return self._on("cuda")

    def to_cpu(self) -> AlternatingLeastSquares:
        """Return this model with its searches and fits on the CPU."""
        return self._on("cpu")

    def _on(self, device: str) -> AlternatingLeastSquares:
        resolve_backend(device)
        other = type(self).__new__(type(self))
        vars(other).update(self.__getstate__())
        other._device = device
        return other

    def save(self, fileobj_or_path: Any) -> None:
        """Write the model as ``.npz``, which implicit loads, too."""
        save_factors(self, fileobj_or_path)

    @classmethod
    def load(cls, fileobj_or_path: Any) -> AlternatingLeastSquares:
        """Read what `save` or implicit has written; nothing is unpickled.

        Raises
        ------
        FormatError
            If the file is none of them.
        """
        model = cls()
        load_factors(model, fileobj_or_path)
        return model
