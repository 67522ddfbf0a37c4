"""`als`: one iteration of ALS, and explicit fits; generated interactions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from recfuse._inputs import as_csr, csr_parts
from recfuse.backend import resolve_backend
from recfuse.bench.case import Answer, Case, Contender, Cost, Inputs, Ready, Referee
from recfuse.bench.cases.als_explicit import ExplicitAls
from recfuse.bench.interactions import draw_interactions, user_items
from recfuse.bench.machine import default_threads
from recfuse.bench.peers.factorisation import (
    ALPHA,
    EXPLICIT_REGULARIZATION,
    REGULARIZATION,
    als_peers,
)
from recfuse.bench.peers.on_device import als_peers_on_device

__all__ = ["CASE", "FULL", "QUICK", "Als"]

# To equal objectives: a peer's may be so much lower after as many iterations from the same start,
# and so much higher, which solvers of different speeds are.
_BEHIND, _AHEAD = 0.001, 0.02
_CG_STEPS = 2  # the default of AlternatingLeastSquares
_CHUNK = 1 << 20  # entries whose predictions are computed at a time


@dataclass(frozen=True, kw_only=True)
class Als(Case):
    """Alternate over `nnz` ratings r, with `factors` factors.

    Implicit, with confidence 1 + r; explicit, towards r itself, without biases.
    """

    op = "als"
    warm_up_calls: ClassVar[int] = 3  # iterations before the answers are compared

    n_users: int
    n_items: int
    nnz: int
    factors: int
    objective: str = "implicit"

    @property
    def name(self) -> str:
        """Sizes in one line."""
        kind = "" if self.objective == "implicit" else f"{self.objective}, an iteration, "
        return f"{kind}{self.n_users} x {self.n_items}, nnz {self.nnz}, f{self.factors}"

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
        return als_peers() if self.objective == "implicit" else []

    def ours_on_device(self) -> list[Contender]:
        """Return the solvers there, with all data there; and an iteration from host to host."""
        there = "interactions and factors on the device, three iterations"
        over = "interactions and factors to the device, an iteration, factors back"
        return [
            _ours("recfuse", _on_device, there, "the next iteration"),
            *(
                _ours(f"recfuse, {name}", make, there, "the next iteration")
                for name, make in _SOLVERS_ON_DEVICE.items()
            ),
            _ours("recfuse, all from the host", _from_host, "two iterations", over),
        ]

    def peers_on_device(self) -> list[Contender]:
        """Return the other implementation of the implicit objective there."""
        return als_peers_on_device() if self.objective == "implicit" else []

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
        return _AlsReferee(user_items(inputs), implicit=self.objective == "implicit")


class _AlsReferee(Referee):
    def __init__(self, ratings: sp.csr_array, *, implicit: bool) -> None:
        self.ratings, self.implicit = ratings, implicit
        self.regularization = REGULARIZATION if implicit else EXPLICIT_REGULARIZATION
        self._known: tuple[Answer, dict[str, float]] | None = None

    def verify(self, answer: Answer) -> str | None:
        values = self.ratings.data.astype(np.float64)
        # Without factors, every entry misses its preference of 1 by 1, or its rating by all of it.
        missed = 1 + ALPHA * values if self.implicit else values**2
        nothing = float(missed.sum())
        objective = self.measures(answer)["objective"]
        if not objective < nothing:
            return f"the objective is {objective:.6g}; without any factors it is {nothing:.6g}"
        return None

    def compare(self, ours: Answer, theirs: Answer) -> str | None:
        expected, got = (self.measures(answer)["objective"] for answer in (ours, theirs))
        if not (1 - _BEHIND) * expected <= got <= (1 + _AHEAD) * expected:
            return f"the objective is {got:.6g} instead of {expected:.6g}"
        return None

    def equal(self, ours: Answer, theirs: Answer) -> str | None:
        """Hold our own solvers against each other: exact ones are ahead of steps towards them."""
        expected, got = (self.measures(answer)["objective"] for answer in (ours, theirs))
        if abs(got - expected) > _AHEAD * expected:
            return f"the objective is {got:.6g} instead of {expected:.6g}"
        return None

    def measures(self, answer: Answer) -> dict[str, float]:
        """Return the objective in float64: of Hu, Koren, Volinsky, or of squared errors."""
        if self._known is None or self._known[0] is not answer:
            self._known = answer, self._measured(answer)
        return self._known[1]

    def _measured(self, answer: Answer) -> dict[str, float]:
        users, items = (answer[name].astype(np.float64) for name in ("users", "items"))
        rows = np.repeat(np.arange(len(users)), np.diff(self.ratings.indptr))
        # The sum over all pairs by the two Gram matrices; then the stored ones set right.
        all_pairs = float(((users.T @ users) * (items.T @ items)).sum())
        objective = all_pairs if self.implicit else 0.0

        def of_stored(start: int) -> float:
            part = slice(start, start + _CHUNK)
            predicted = np.einsum("ij,ij->i", users[rows[part]], items[self.ratings.indices[part]])
            values = self.ratings.data[part].astype(np.float64)
            if not self.implicit:
                return float(((values - predicted) ** 2).sum())
            confidence = 1 + ALPHA * values
            return float((confidence * (1 - predicted) ** 2 - predicted**2).sum())

        with ThreadPoolExecutor(default_threads()) as pool:
            objective += sum(pool.map(of_stored, range(0, len(rows), _CHUNK)))
        objective += self.regularization * float((users**2).sum() + (items**2).sum())
        return {"objective": objective}


def _ours(name: str, prepare: Any, once: str, per_call: str) -> Contender:
    return Contender(name, "recfuse", "recfuse", prepare, once, per_call)


def _solver(case: Als, inputs: Inputs, num_threads: int) -> Ready:
    return _stepping(_started(case, inputs, num_threads, "cpu", "auto"), num_threads)


def _on_device(case: Als, inputs: Inputs, num_threads: int) -> Ready:
    return _stepping(_started(case, inputs, num_threads, "cuda", "auto"), num_threads)


def _exact_on_device(case: Als, inputs: Inputs, num_threads: int) -> Ready:
    return _stepping(_started(case, inputs, num_threads, "cuda", "cholesky"), num_threads)


def _cg_on_device(case: Als, inputs: Inputs, num_threads: int) -> Ready:
    return _stepping(_started(case, inputs, num_threads, "cuda", "cg"), num_threads)


_SOLVERS_ON_DEVICE = {"exact": _exact_on_device, "cg": _cg_on_device}


def _from_host(case: Als, inputs: Inputs, num_threads: int) -> Ready:
    solver = _started(case, inputs, num_threads, "cuda", "auto")
    for _ in range(case.warm_up_calls - 1):
        solver.step(num_threads)
    users, items, *_ = solver.factors()
    before = {**inputs, "start_users": users, "start_items": items}

    def iteration() -> Any:
        again = _started(case, before, num_threads, "cuda", "auto")
        again.step(num_threads)
        return again.factors()

    return Ready(iteration, lambda factors: {"users": factors[0], "items": factors[1]})


def _started(case: Als, inputs: Inputs, num_threads: int, device: str, solver: str) -> Any:
    # What AlternatingLeastSquares.fit drives; its factors can be read between two steps.
    started = resolve_backend(device).ops.AlsSolver(
        csr_parts(as_csr(user_items(inputs), "user_items")),
        objective=case.objective,
        solver=solver,
        factors=case.factors,
        regularization=EXPLICIT_REGULARIZATION if case.objective == "explicit" else REGULARIZATION,
        alpha=ALPHA,
        frequency_scaling=0.0,
        biases=False,
        cg_steps=_CG_STEPS,
        num_threads=num_threads,
    )
    none = np.zeros(0, np.float32)
    started.set_factors(inputs["start_users"], inputs["start_items"], none, none)
    return started


def _stepping(solver: Any, num_threads: int) -> Ready:
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
FULL_ON_DEVICE: list[Case] = [
    Als(n_users=138_000, n_items=27_000, nnz=20_000_000, factors=64, objective="explicit"),
]
