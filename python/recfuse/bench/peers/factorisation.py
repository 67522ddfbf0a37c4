"""Implicit ALS by implicit, on the same objective."""

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
        )
    ]


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
