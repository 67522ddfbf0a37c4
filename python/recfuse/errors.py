"""The exceptions of recfuse. Wrong arguments raise ValueError, TypeError or IndexError."""

from __future__ import annotations

__all__ = ["DatasetError", "DeviceError", "FormatError", "NotFittedError", "RecfuseError"]


class RecfuseError(Exception):
    """Base of the exceptions that are special to recfuse."""


class DatasetError(RecfuseError, OSError):
    """Data could not be fetched, or are not the data expected; the message says what to do."""


class DeviceError(RecfuseError, RuntimeError):
    """The device that was asked for cannot be used, or failed; the message says why."""


class NotFittedError(RecfuseError, ValueError, AttributeError):
    """A method that needs `fit` was called before it."""


class FormatError(RecfuseError, ValueError):
    """A file is damaged, or is not what its reader understands."""
