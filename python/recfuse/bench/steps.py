"""A fit that stops after every iteration, so that the iterations of several fits can alternate."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Steps"]


class Steps:
    """Run `fit` in a thread of its own, one iteration per call.

    Parameters
    ----------
    fit : callable
        ``fit(callback)`` calls ``callback(...)`` at the end of every iteration, whatever the
        arguments, and does not return for as long as it is stepped.

    Examples
    --------
    >>> seen = []
    >>> def fit(callback):
    ...     for iteration in range(3):
    ...         seen.append(iteration)
    ...         callback(iteration)
    >>> step = Steps(fit)
    >>> step(); step()
    >>> seen
    [0, 1]
    """

    def __init__(self, fit: Callable[[Callable[..., None]], Any]) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        # A daemon: the fit waits for the next call for as long as the process lives.
        threading.Thread(target=self._run, args=(fit,), daemon=True).start()

    def __call__(self) -> None:
        """Let the fit run to the end of its next iteration."""
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error

    def _run(self, fit: Callable[[Callable[..., None]], Any]) -> None:
        self._go.acquire()
        try:
            fit(self._pause)
            raise RuntimeError("the fit has no further iterations")
        except BaseException as error:
            self._error = error
        self._done.release()

    def _pause(self, *_: object, **__: object) -> None:
        self._done.release()
        self._go.acquire()
