"""Names that exist so that a program can be imported, and say when called what is not there."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["Unavailable"]


class Unavailable:
    """A name of implicit that recfuse does not have."""

    def __init__(self, name: str, hint: str) -> None:
        self.__name__ = name
        self._message = f"{name} must come from implicit itself: recfuse has none. {hint}"

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise NotImplementedError, which says what to do instead."""
        raise NotImplementedError(self._message)

    load = __call__
