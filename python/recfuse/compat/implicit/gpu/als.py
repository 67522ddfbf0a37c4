"""implicit.gpu.als: the model with its fits and searches on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from recfuse.backend import resolve_backend
from recfuse.compat.implicit.cpu import als as _cpu_als

__all__ = ["AlternatingLeastSquares", "calculate_loss"]

calculate_loss = _cpu_als.calculate_loss


class AlternatingLeastSquares(_cpu_als.AlternatingLeastSquares):
    """`cpu.als.AlternatingLeastSquares` with `alpha`, and a seed of 0, taken at their word.

    Raises
    ------
    DeviceError
        If there is no usable GPU; the message says why.
    """

    def __init__(
        self,
        factors: int = 64,
        regularization: float = 0.01,
        alpha: float = 1.0,
        dtype: Any = np.float32,
        iterations: int = 15,
        calculate_training_loss: bool = False,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            factors=factors,
            regularization=regularization,
            alpha=alpha,
            dtype=dtype,
            iterations=iterations,
            calculate_training_loss=calculate_training_loss,
            random_state=random_state,
        )
        self._device = resolve_backend("cuda").device
