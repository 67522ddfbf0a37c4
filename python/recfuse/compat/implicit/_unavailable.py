"""Names that exist so that a program can be imported, and say when called what is not there."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["Unavailable", "UnavailableModel"]


def _refuse(name: str, hint: str) -> NoReturn:
    raise NotImplementedError(f"{name} must come from implicit itself: recfuse has none. {hint}")


class Unavailable:
    """A function of implicit that recfuse does not have."""

    def __init__(self, name: str, hint: str) -> None:
        self.__name__ = name
        self._hint = hint

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise NotImplementedError, which says what to do instead."""
        _refuse(self.__name__, self._hint)


class UnavailableModel:
    """A model of implicit that recfuse does not have: a class, for `isinstance` and annotations."""

    _hint = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse(type(self).__name__, self._hint)

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise NotImplementedError, which says what to do instead."""
        _refuse(cls.__name__, cls._hint)
