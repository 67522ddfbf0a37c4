"""`als`: one iteration of implicit ALS, and explicit fits; generated interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from recfuse._inputs import as_csr, csr_parts
from recfuse.backend import resolve_backend
from recfuse.bench.case import Answer, Case, Contender, Cost, Inputs, Ready, Referee
from recfuse.bench.cases.als_explicit import ExplicitAls
from recfuse.bench.interactions import draw_interactions, user_items
from recfuse.bench.peers.factorisation import ALPHA, REGULARIZATION, als_peers

__all__ = ["CASE", "FULL", "QUICK", "Als"]

# To equal objectives: a peer's may be so much lower after as many iterations from the same start,
# and so much higher, which solvers of different speeds are.
_BEHIND, _AHEAD = 0.001, 0.02
_CG_STEPS = 2  # the default of AlternatingLeastSquares
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
        """Draw the interactions and the factors that everyone starts from."""
        rng = np.random.default_rng(self.seed)
        scale = np.float32(0.1 / np.sqrt(self.factors))
        start = {
            f"start_{name}": scale * rng.standard_normal((n, self.factors), np.float32)
            for name, n in (("users", self.n_users), ("items", self.n_items))
        }
        return draw_interactions(self.n_users, self.n_items, self.nnz, self.seed) | start

    def ours(self) -> list[Contender]:
        """Return the solver that AlternatingLeastSquares takes by default."""
        once = "AlternatingLeastSquares up to its third iteration"
        return [Contender("recfuse", "recfuse", "recfuse", _solver, once, "the next iteration")]

    def peers(self) -> list[Contender]:
        """Return the other implementations of the same objective."""
        return als_peers()

    def cost(self, inputs: Inputs) -> Cost:
        """Take the steps of conjugate gradients; gather each neighbour's factors once a side."""
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
        if not (1 - _BEHIND) * expected <= got <= (1 + _AHEAD) * expected:
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


def _solver(case: Als, inputs: Inputs, num_threads: int) -> Ready:
    # What AlternatingLeastSquares.fit drives; its factors can be read between two steps.
    solver = resolve_backend("cpu").ops.AlsSolver(
        csr_parts(as_csr(user_items(inputs), "user_items")),
        objective="implicit",
        solver="auto",
        factors=case.factors,
        regularization=REGULARIZATION,
        alpha=ALPHA,
        frequency_scaling=0.0,
        biases=False,
        cg_steps=_CG_STEPS,
        num_threads=num_threads,
    )
    none = np.zeros(0, np.float32)
    solver.set_factors(inputs["start_users"], inputs["start_items"], none, none)

    def answer(_: Any) -> Answer:
        users, items, *_ = solver.factors()
        return {"users": users, "items": items}

    return Ready(lambda: solver.step(num_threads), answer)


def CASE(**sizes: Any) -> Case:
    """Return the case of these sizes."""
    return ExplicitAls(**sizes) if "peer_iterations" in sizes else Als(**sizes)


QUICK: list[Case] = [
    Als(n_users=8_000, n_items=3_000, nnz=400_000, factors=64),
    ExplicitAls(
        n_users=8_000, n_items=3_000, nnz=400_000, factors=50, peer_iterations=4, our_iterations=5
    ),
]
FULL: list[Case] = [
    Als(n_users=138_000, n_items=27_000, nnz=20_000_000, factors=64),
    Als(n_users=138_000, n_items=27_000, nnz=20_000_000, factors=128),
    ExplicitAls(
        n_users=138_000,
        n_items=27_000,
        nnz=20_000_000,
        factors=50,
        peer_iterations=4,
        our_iterations=7,
    ),
]
