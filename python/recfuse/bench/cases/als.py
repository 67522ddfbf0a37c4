"""`als`: one iteration of implicit ALS, users then items, generated interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

import recfuse
from recfuse.bench.case import Answer, Case, Contender, Cost, Inputs, Ready, Referee
from recfuse.bench.interactions import draw_interactions, user_items
from recfuse.bench.peers.factorisation import ALPHA, REGULARIZATION, als_peers
from recfuse.bench.steps import Steps

__all__ = ["CASE", "FULL", "QUICK", "Als"]

_TOLERANCE = 0.05  # of the objective: solvers differ, and so do the factors that they start from
_CG_STEPS = 3
_CHUNK = 1 << 20  # entries whose predictions are computed at a time


@dataclass(frozen=True, kw_only=True)
class Als(Case):
    """Alternate over `nnz` ratings r, with confidence 1 + r and `factors` factors."""

    op = "als"
    warm_up_calls: ClassVar[int] = 3  # iterations before the answers are compared

    n_users: int
    n_items: int
    nnz: int
    factors: int

    @property
    def name(self) -> str:
        """Sizes in one line."""
        return f"{self.n_users} x {self.n_items}, nnz {self.nnz}, f{self.factors}"

    def inputs(self) -> Inputs:
        """Draw the interactions."""
        return draw_interactions(self.n_users, self.n_items, self.nnz, self.seed)

    def ours(self) -> list[Contender]:
        """Return the estimator with its default solver."""
        once = f"the first {self.warm_up_calls} iterations of AlternatingLeastSquares.fit"
        return [Contender("recfuse", "recfuse", "recfuse", _fit, once, "the next iteration")]

    def peers(self) -> list[Contender]:
        """Return the other implementations of the same objective."""
        return als_peers()

    def cost(self, inputs: Inputs) -> Cost:
        """Take three steps of conjugate gradients; gather each neighbour's factors once a side."""
        rows = self.n_users + self.n_items
        return Cost(
            flops=float(rows * self.factors**2 + 8 * (_CG_STEPS + 1) * self.nnz * self.factors),
            bytes=2.0 * self.nnz * (4 * self.factors + 8) + 8.0 * rows * self.factors,
            working_set=4.0 * max(self.n_users, self.n_items) * self.factors,
        )

    def referee(self, inputs: Inputs) -> Referee:
        """Return one that computes the objective."""
        return _AlsReferee(user_items(inputs))


class _AlsReferee(Referee):
    def __init__(self, ratings: sp.csr_array) -> None:
        self.ratings = ratings

    def verify(self, answer: Answer) -> str | None:
        # Without factors, every entry misses its preference of 1 by 1.
        nothing = float((1 + ALPHA * self.ratings.data.astype(np.float64)).sum())
        objective = self.measures(answer)["objective"]
        if not objective < nothing:
            return f"the objective is {objective:.6g}; without any factors it is {nothing:.6g}"
        return None

    def compare(self, ours: Answer, theirs: Answer) -> str | None:
        expected, got = (self.measures(answer)["objective"] for answer in (ours, theirs))
        if not abs(got - expected) <= _TOLERANCE * expected:
            return f"the objective is {got:.6g} instead of {expected:.6g}"
        return None

    def measures(self, answer: Answer) -> dict[str, float]:
        """Return the objective of Hu, Koren, Volinsky in float64."""
        users, items = (answer[name].astype(np.float64) for name in ("users", "items"))
        rows = np.repeat(np.arange(len(users)), np.diff(self.ratings.indptr))
        # The sum over all pairs by the two Gram matrices; then the stored ones set right.
        objective = float(((users.T @ users) * (items.T @ items)).sum())
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            predicted = np.einsum("ij,ij->i", users[rows[part]], items[self.ratings.indices[part]])
            confidence = 1 + ALPHA * self.ratings.data[part].astype(np.float64)
            objective += float((confidence * (1 - predicted) ** 2 - predicted**2).sum())
        objective += REGULARIZATION * float((users**2).sum() + (items**2).sum())
        return {"objective": objective}


def _fit(case: Als, inputs: Inputs, num_threads: int) -> Ready:
    model = recfuse.AlternatingLeastSquares(
        case.factors,
        regularization=REGULARIZATION,
        alpha=ALPHA,
        iterations=1 << 30,
        random_state=case.seed,
        num_threads=num_threads,
    )
    ratings = user_items(inputs)

    def answer(_: Any) -> dict[str, NDArray[Any]]:
        return {"users": model.user_factors_, "items": model.item_factors_}

    return Ready(Steps(lambda callback: model.fit(ratings, callback=callback)), answer)


CASE = Als
QUICK = [Als(n_users=8_000, n_items=3_000, nnz=400_000, factors=64)]
FULL = [
    Als(n_users=138_000, n_items=27_000, nnz=20_000_000, factors=factors) for factors in (64, 128)
]
