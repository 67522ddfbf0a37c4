"""implicit.als: here a class, so that its `load` and `isinstance` work."""

from __future__ import annotations

from typing import Any

import numpy as np

from recfuse.backend import resolve_backend
from recfuse.compat.implicit import gpu
from recfuse.compat.implicit.cpu import als as _cpu_als

__all__ = ["AlternatingLeastSquares"]


class AlternatingLeastSquares(_cpu_als.AlternatingLeastSquares):
    """`cpu.als.AlternatingLeastSquares`, with one argument more.

    Parameters
    ----------
    use_gpu : bool, default=False
        Fit and search on a GPU. Factors are NumPy arrays nevertheless.
    factors, regularization, alpha, dtype, use_native, use_cg, iterations
        As there.
    calculate_training_loss, num_threads, random_state
        As there.

    Raises
    ------
    DeviceError
        If `use_gpu` is true and there is no usable GPU; the message says why.
    """

    def __init__(
        self,
        factors: int = 100,
        regularization: float = 0.01,
        alpha: float = 1.0,
        dtype: Any = np.float32,
        use_native: bool = True,
        use_cg: bool = True,
        use_gpu: bool = gpu.HAS_CUDA,
        iterations: int = 15,
        calculate_training_loss: bool = False,
        num_threads: int = 0,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            factors=factors,
            regularization=regularization,
            alpha=alpha,
            dtype=dtype,
            use_native=use_native,
            use_cg=use_cg,
            iterations=iterations,
            calculate_training_loss=calculate_training_loss,
            num_threads=num_threads,
            random_state=random_state,
        )
        if use_gpu:
            self._device = resolve_backend("cuda").device
