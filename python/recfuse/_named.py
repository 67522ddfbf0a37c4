"""Errors say what was called: the op of ``<op>: <argument> must <rule>; got <value>``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["named"]

F = TypeVar("F", bound=Callable[..., Any])

# With an op in front of it or without; a variable of the environment, in capitals, is no argument.
_ARGUMENT = re.compile(r"(\w+: )?([a-z]\w*)(\[[^\]]*\])?(\.\w+)? must ")


def named(op: str) -> Callable[[F], F]:
    """Decorate what users call: its name goes in front of errors about its arguments.

    A check that several ops share, such as `as_matrix`, knows the argument; only what was called
    knows the op. Of calls inside one another, the outermost that has the argument is named, and
    the innermost where none has it: whoever asks a model for k = 0 has called no search.
    """

    def decorate(function: F) -> F:
        code = function.__code__
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except (TypeError, ValueError, IndexError, MemoryError, OSError) as error:
                message = error.args[0] if error.args else None
                found = _ARGUMENT.match(message) if isinstance(message, str) else None
                if found and (found[1] is None or found[2] in arguments):
                    rest = error.args[0][found.end(1) if found[1] else 0 :]
                    error.args = (f"{op}: {rest}", *error.args[1:])
                raise

        return cast(F, call)

    return decorate
