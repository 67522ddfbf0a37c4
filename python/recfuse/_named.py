"""Errors say what was called: the op of ``<op>: <argument> must <rule>; got <value>``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["named"]

F = TypeVar("F", bound=Callable[..., Any])

# Without an op in front of it; a variable of the environment, in capitals, is no argument.
_ARGUMENT = re.compile(r"[a-z]\w*(\[[^\]]*\])?(\.\w+)? must ")


def named(op: str) -> Callable[[F], F]:
    """Decorate what users call: its name goes in front of errors that name an argument alone.

    A check that several ops share, such as `as_matrix`, knows the argument; only what was called
    knows the op. Of calls inside one another, the innermost is named, as in C++.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except (TypeError, ValueError, IndexError, MemoryError) as error:
                message = error.args[0] if error.args else None
                if isinstance(message, str) and _ARGUMENT.match(message):
                    error.args = (f"{op}: {message}", *error.args[1:])
                raise

        return cast(F, call)

    return decorate
