"""ALS by implicit, irspack (implicit feedback) and cmfrec (ratings), on the same objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from recfuse.bench.case import Answer, Contender, Inputs, Ready
from recfuse.bench.interactions import user_items
from recfuse.bench.steps import Steps

if TYPE_CHECKING:
    from recfuse.bench.cases.als import Als
    from recfuse.bench.cases.als_explicit import ExplicitAls

__all__ = [
    "ALPHA",
    "EXPLICIT_REGULARIZATION",
    "REGULARIZATION",
    "als_peers",
    "explicit_als_peers",
]

ALPHA = 1.0
REGULARIZATION = 0.01
EXPLICIT_REGULARIZATION = 5.0


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


def explicit_als_peers(iterations: int) -> list[Contender]:
    """Return the peers."""
    return [
        Contender(
            "cmfrec",
            "cmfrec",
            "cmfrec",
            _cmfrec,
            "the ratings as COO, with which it begins",
            f"CMF.fit, {iterations} iterations of its conjugate gradients, nothing after them",
            {"OPENBLAS_NUM_THREADS": "1"},  # its own threads call BLAS for small vectors
        )
    ]


def _cmfrec(case: ExplicitAls, inputs: Inputs, num_threads: int) -> Ready:
    from cmfrec import CMF

    ratings = sp.coo_matrix(user_items(inputs))

    def fit() -> Any:
        model = CMF(
            k=case.factors,
            lambda_=EXPLICIT_REGULARIZATION,
            method="als",
            use_cg=True,
            finalize_chol=False,
            niter=case.peer_iterations,
            nthreads=num_threads,
            use_float=True,
            precompute_for_predictions=False,
            verbose=False,
        )
        return model.fit(ratings)

    def answer(model: Any) -> Answer:
        return {
            "users": model.A_,
            "items": model.B_,
            "user_biases": model.user_bias_,
            "item_biases": model.item_bias_,
            "mean": np.array([model.glob_mean_]),
        }

    return Ready(fit, answer)
