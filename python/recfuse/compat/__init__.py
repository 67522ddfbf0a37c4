"""Other libraries' names and signatures over recfuse: import them from here, or patch a program."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import ModuleType, TracebackType

__all__ = ["Patch", "patch"]


class Patch:
    """What `patch` has put into `sys.modules`; a context manager that takes it out again."""

    def __init__(self, name: str, modules: dict[str, ModuleType]) -> None:
        self.name = name
        self._modules = modules

    def undo(self) -> None:
        """Take the modules out again; what was imported from them meanwhile goes on working."""
        for name, module in self._modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        """Name the library."""
        return f"<recfuse.compat.Patch of {self.name!r}>"


def patch(name: str) -> Patch:
    """Let ``import <name>`` import recfuse's drop-in for that library, without an edit.

    Call it before the library is imported anywhere in the process.

    Parameters
    ----------
    name : str
        A library that `recfuse.compat` has, such as 'implicit'.

    Returns
    -------
    Patch
        With `undo`; as a context manager, it undoes at the end.

    Raises
    ------
    ValueError
        If there is no drop-in of that name.
    ImportError
        If the library itself was imported before: whoever has its classes would go on using them.

    Examples
    --------
    >>> import recfuse.compat
    >>> with recfuse.compat.patch("implicit"):  # doctest: +SKIP
    ...     import implicit
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise ValueError(f"patch: name must be one of {', '.join(known)}; got {name!r}")
    ours = importlib.import_module(f"{__name__}.{name}")
    if sys.modules.get(name, ours) is not ours:
        raise ImportError(
            f"patch: {name} must not be imported before; got it from "
            f"{getattr(sys.modules[name], '__file__', None)}. Call recfuse.compat.patch({name!r}) "
            "at the start of the program."
        )
    # All of them now: a submodule that is found later by its path would be a second copy.
    inside = pkgutil.walk_packages(getattr(ours, "__path__", []), f"{ours.__name__}.")
    modules = {name: ours}
    for module in inside:
        alias = module.name.removeprefix(f"{__name__}.")
        modules[alias] = importlib.import_module(module.name)
    sys.modules.update(modules)
    return Patch(name, modules)
