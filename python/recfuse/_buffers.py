"""What a plan of memory is made of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Buffer", "Plan"]


@dataclass(frozen=True)
class Buffer:
    """Something that lies in memory while an op runs.

    Attributes
    ----------
    name : str
    n_bytes : int
        All threads together.
    phase : str
        'input' for what the caller has, 'kept' for what lasts from the first phase to the last (and
        of a handle between calls), otherwise the phase of the op that needs it and frees it.
    """

    name: str
    n_bytes: int
    phase: str


Plan = tuple[list[Buffer], dict[str, int]]  # and how the work is cut
