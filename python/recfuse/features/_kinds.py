"""Words that several encoders take."""

from __future__ import annotations

from typing import Literal

__all__ = ["Pooling"]

Pooling = Literal["mean", "max", "sum", "std"]
