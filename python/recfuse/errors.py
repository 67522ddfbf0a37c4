"""The exceptions of recfuse. Wrong arguments raise ValueError, TypeError or IndexError."""

from __future__ import annotations

__all__ = ["DeviceError", "FormatError", "NotFittedError", "RecfuseError"]


class RecfuseError(Exception):
    """Base of the exceptions that are special to recfuse."""


class DeviceError(RecfuseError, RuntimeError):
    """The device that was asked for cannot be used, or failed; the message says why."""


class NotFittedError(RecfuseError, ValueError, AttributeError):
    """A method that needs `fit` was called before it."""


class FormatError(RecfuseError, ValueError):
    """A file is damaged, or is not what its reader understands."""
