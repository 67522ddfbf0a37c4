"""How what lies behind, or far away, fades: halving, the same rule for all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_float

__all__ = ["fading", "half_life_of"]


def half_life_of(value: Any, name: str = "half_life") -> float:
    """Return a number above 0, after which half is left; infinity leaves everything."""
    half = as_float(value, name)
    if not half > 0:
        raise ValueError(f"{name} must be above 0; got {value}")
    return half


def fading(ages: ArrayLike, half_life: float) -> NDArray[np.float64]:
    """Return factors ``2 ** -(age / half_life)``, in float64."""
    past = np.asarray(ages, np.float64)
    if half_life == np.inf:  # of what lies infinitely far away, too
        return np.ones(past.shape)
    return np.asarray(np.exp2(-past / half_life))
