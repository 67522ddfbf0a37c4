"""What a fitted model makes when it is first asked, and keeps until it has learned anew."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from recfuse._base import Estimator

__all__ = ["MadeOnce"]


class MadeOnce(Estimator):
    """Keeps what is made of learned arrays; copies, pickles and files do without it."""

    def _made_once(self, name: str, learned: Any, make: Callable[[], Any]) -> Any:
        """Return ``make()``, made anew where array or parameters are others than last time."""
        key = (learned, *(getattr(self, parameter) for parameter in self._parameter_names()))
        made = vars(self).setdefault("_made", {})
        if name not in made or not all(map(operator.is_, made[name][0], key)):
            made[name] = key, make()
        return made[name][1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made again from what was learned."""
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_made"}
