"""Implicit ALS by implicit and irspack, on the same objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import scipy.sparse as sp

from recfuse.bench.case import Answer, Contender, Inputs, Ready
from recfuse.bench.interactions import user_items
from recfuse.bench.steps import Steps

if TYPE_CHECKING:
    from recfuse.bench.cases.als import Als

__all__ = ["ALPHA", "REGULARIZATION", "als_peers"]

ALPHA = 1.0
REGULARIZATION = 0.01


def als_peers() -> list[Contender]:
    """Return the peers."""
    return [
        Contender(
            "implicit",
            "implicit",
            "implicit",
            _implicit,
            "AlternatingLeastSquares, its default solver, up to its third iteration",
            "the next iteration",
            # As it asks itself: its own threads call BLAS for small vectors.
            {"OPENBLAS_NUM_THREADS": "1"},
        ),
        Contender(
            "irspack",
            "irspack",
            "irspack",
            _irspack,
            "IALSTrainer, three steps of its conjugate gradients, up to its third iteration",
            "the next iteration",
        ),
    ]


def _irspack(case: Als, inputs: Inputs, num_threads: int) -> Ready:
    from irspack.recommenders.ials import IALSTrainer, LossType, SolverType

    # Its ORIGINAL loss is alpha0 for an absent entry and alpha0 + value for a stored one.
    ratings = sp.csr_matrix(user_items(inputs))
    ratings.data = ALPHA * ratings.data
    trainer = IALSTrainer(
        ratings,
        case.factors,
        alpha0=1.0,
        reg=REGULARIZATION,
        nu=0.0,
        init_std=0.1,
        solver_type=SolverType.CG,
        max_cg_steps=3,
        ialspp_subspace_dimension=64,
        loss_type=LossType.ORIGINAL,
        random_seed=0,
        n_threads=num_threads,
        prediction_time_max_cg_steps=3,
        prediction_time_ialspp_iteration=1,
    )
    trainer.core_trainer.user = inputs["start_users"].copy()
    trainer.core_trainer.item = inputs["start_items"].copy()

    def answer(_: Any) -> Answer:
        return {"users": trainer.core_trainer.user, "items": trainer.core_trainer.item}

    return Ready(trainer.run_epoch, answer)


def _implicit(case: Als, inputs: Inputs, num_threads: int) -> Ready:
    from implicit.cpu.als import AlternatingLeastSquares

    confidence = sp.csr_matrix(user_items(inputs))
    # Its stored values are the confidences themselves; recfuse's are 1 + alpha * r.
    confidence.data = 1 + ALPHA * confidence.data
    model = AlternatingLeastSquares(
        factors=case.factors,
        regularization=REGULARIZATION,
        iterations=1 << 30,
        num_threads=num_threads,
    )
    model.user_factors = inputs["start_users"].copy()
    model.item_factors = inputs["start_items"].copy()

    def fit(callback: Any) -> Any:
        return model.fit(confidence, show_progress=False, callback=callback)

    def answer(_: Any) -> Answer:
        return {"users": model.user_factors, "items": model.item_factors}

    return Ready(Steps(fit), answer)
