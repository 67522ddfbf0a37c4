"""Explicit ALS, whole fits to the same training error; its cases belong to the op `als`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

import recfuse
from recfuse.bench.case import Answer, Case, Contender, Cost, Inputs, Ready, Referee
from recfuse.bench.interactions import draw_interactions, user_items
from recfuse.bench.peers.factorisation import EXPLICIT_REGULARIZATION, explicit_als_peers

__all__ = ["ExplicitAls"]

_BEHIND = 0.002  # of the error: so much less may a peer's be, starting elsewhere
_CG_STEPS = 2  # the default of AlternatingLeastSquares
_CHUNK = 1 << 20  # entries whose predictions are computed at a time


@dataclass(frozen=True, kw_only=True)
class ExplicitAls(Case):
    """Fit ratings with biases until the training error is what the peer's iterations leave."""

    op: ClassVar[str] = "als"

    n_users: int
    n_items: int
    nnz: int
    factors: int
    peer_iterations: int  # of a peer whose steps get as far as exact solutions do
    our_iterations: int  # that it takes to get there

    @property
    def name(self) -> str:
        """Sizes in one line."""
        return (
            f"explicit, to equal RMSE, {self.n_users} x {self.n_items}, "
            f"nnz {self.nnz}, f{self.factors}"
        )

    def inputs(self) -> Inputs:
        """Draw the ratings."""
        return draw_interactions(self.n_users, self.n_items, self.nnz, self.seed)

    def ours(self) -> list[Contender]:
        """Return AlternatingLeastSquares as it is by default."""
        call = f"AlternatingLeastSquares.fit, {self.our_iterations} iterations"
        return [Contender("recfuse", "recfuse", "recfuse", _recfuse, "nothing", call)]

    def ours_on_device(self) -> list[Contender]:
        """Return the same fit there, from ratings of the host to factors of the host."""
        call = f"AlternatingLeastSquares.fit, {self.our_iterations} iterations"
        name = "recfuse, all from the host"
        return [Contender(name, "recfuse", "recfuse", _on_device, "nothing", call)]

    def peers(self) -> list[Contender]:
        """Return the other implementations of the same objective."""
        return explicit_als_peers(self.peer_iterations)

    def cost(self, inputs: Inputs) -> Cost:
        """Take the steps of conjugate gradients; gather each neighbour's factors once a side."""
        entries = float(self.our_iterations * self.nnz)
        rows = self.our_iterations * (self.n_users + self.n_items)
        return Cost(
            flops=8 * (_CG_STEPS + 1) * entries * self.factors,
            bytes=2.0 * entries * (4 * self.factors + 8) + 8.0 * rows * self.factors,
            working_set=4.0 * max(self.n_users, self.n_items) * self.factors,
        )

    def referee(self, inputs: Inputs) -> Referee:
        """Return one that computes the error."""
        return _RmseReferee(user_items(inputs))


class _RmseReferee(Referee):
    def __init__(self, ratings: sp.csr_array) -> None:
        self.ratings = ratings

    def verify(self, answer: Answer) -> str | None:
        mean_alone = float(self.ratings.data.std(dtype=np.float64))
        rmse = self.measures(answer)["rmse"]
        if not rmse < mean_alone:
            return f"the error is {rmse:.6g}; that of the mean is {mean_alone:.6g}"
        return None

    def compare(self, ours: Answer, theirs: Answer) -> str | None:
        expected, got = (self.measures(answer)["rmse"] for answer in (ours, theirs))
        if not got >= (1 - _BEHIND) * expected:
            return f"its error is {got:.6g}, which recfuse does not reach with {expected:.6g}"
        return None

    def equal(self, ours: Answer, theirs: Answer) -> str | None:
        """Hold errors against each other: solvers and devices round differently."""
        expected, got = (self.measures(answer)["rmse"] for answer in (ours, theirs))
        if abs(got - expected) > _BEHIND * expected:
            return f"the error is {got:.6g} instead of {expected:.6g}"
        return None

    def measures(self, answer: Answer) -> dict[str, float]:
        """Return the root of the mean squared error of the ratings that all learned from."""
        ratings = self.ratings
        rows = np.repeat(np.arange(ratings.shape[0]), np.diff(ratings.indptr))
        total = 0.0
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            users, items = rows[part], ratings.indices[part]
            predicted = np.einsum("ij,ij->i", answer["users"][users], answer["items"][items])
            error = ratings.data[part] - answer["mean"][0] - predicted.astype(np.float64)
            error -= answer["user_biases"][users]
            error -= answer["item_biases"][items]
            total += float((error**2).sum())
        return {"rmse": float(np.sqrt(total / len(rows)))}


def _recfuse(case: ExplicitAls, inputs: Inputs, num_threads: int) -> Ready:
    return _fitting(case, inputs, num_threads, "cpu")


def _on_device(case: ExplicitAls, inputs: Inputs, num_threads: int) -> Ready:
    return _fitting(case, inputs, num_threads, "cuda")


def _fitting(case: ExplicitAls, inputs: Inputs, num_threads: int, device: str) -> Ready:
    ratings = user_items(inputs)
    model = recfuse.AlternatingLeastSquares(
        case.factors,
        objective="explicit",
        biases=True,
        regularization=EXPLICIT_REGULARIZATION,
        iterations=case.our_iterations,
        random_state=case.seed,
        num_threads=num_threads,
        device=device,
    )

    def answer(_: Any) -> Answer:
        return {
            "users": model.user_factors_,
            "items": model.item_factors_,
            "user_biases": model.user_biases_,
            "item_biases": model.item_biases_,
            "mean": np.array([model.global_mean_]),
        }

    return Ready(lambda: model.fit(ratings), answer)
