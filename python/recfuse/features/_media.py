"""What encoders of files share: lazy decoding in batches, and files that cannot be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recfuse._progress import progress

__all__ = ["Encoded", "Errors", "MediaEncoder", "Unreadable", "labelled"]

Errors = Literal["raise", "skip"]
Place = Callable[[int], str]


class Unreadable(ValueError):
    """What a decoder raises for an input that it cannot read."""


class Encoded(NamedTuple):
    """Vectors of the inputs, which of them there are, and why the others could not be read.

    Attributes
    ----------
    vectors : ndarray of shape (n, dim), float32
        A zero row for an input that is None or could not be read.
    present : ndarray of shape (n,), bool
        For `present` of `FusedIndex` and `fuse_topk`.
    failures : dict of int to str
        Row to reason, with the name of the file; empty with ``errors="raise"``.
    """

    vectors: NDArray[np.float32]
    present: NDArray[np.bool_]
    failures: dict[int, str]


class MediaEncoder:
    """Base of the encoders of images and sound: subclasses decode one input, and encode a list."""

    _batch_size: int
    _noun: str

    def encode(
        self, inputs: Iterable[Any], *, errors: Errors = "raise", show_progress: bool = False
    ) -> Encoded:
        """Decode and encode, a batch in memory at a time.

        Parameters
        ----------
        inputs : iterable
            Paths, bytes of files, or decoded inputs; see the class. None is an input that there is
            not: a zero row, and no failure. A generator is fine.
        errors : {'raise', 'skip'}, default='raise'
            'skip' leaves a zero row and a reason for an input that cannot be read.
        show_progress : bool, default=False
            Show a bar on standard error (extra ``recfuse[progress]``).

        Returns
        -------
        vectors : ndarray of shape (n, dim), float32
        present : ndarray of shape (n,), bool
        failures : dict of int to str

        Raises
        ------
        ValueError
            If an input cannot be read, by its name, with ``errors='raise'``.
        TypeError
            If an input is of no such kind.
        ImportError
            Where the library that decodes is missing.
        """
        return self._encode(inputs, errors, show_progress, _place)

    def _encode(
        self, inputs: Iterable[Any], errors: Errors, show_progress: bool, place: Place
    ) -> Encoded:
        """Encode; `place` says where the caller's user finds an input that cannot be read."""
        op = type(self).__name__
        if errors not in ("raise", "skip"):
            raise ValueError(f"{op}: errors must be 'raise' or 'skip'; got {errors!r}")
        if isinstance(inputs, (str, bytes, os.PathLike)):
            raise TypeError(f"{op}: inputs must be a list; got one {type(inputs).__name__}")
        failures: dict[int, str] = {}
        present: list[bool] = []
        parts = [
            self._vectors(batch)
            for batch in self._batches(inputs, errors, failures, present, show_progress, place)
        ]
        mask = np.array(present, np.bool_)
        found = np.concatenate(parts) if parts else self._vectors([])
        vectors = np.zeros((len(mask), found.shape[1]), np.float32)
        vectors[mask] = found
        return Encoded(vectors, mask, failures)

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the vector of an input, for caches."""
        return hashlib.sha256(repr(self._identity()).encode()).hexdigest()

    def content(self, source: Any) -> bytes:
        """Return the bytes that an input is made of: the content of a file, not its name."""
        if isinstance(source, (str, os.PathLike)):
            return Path(source).read_bytes()
        if isinstance(source, (bytes, bytearray, memoryview)):
            return bytes(source)
        array = self._decode(source)
        return f"{array.dtype.str} {array.shape}".encode() + array.tobytes()

    def _batches(
        self,
        inputs: Iterable[Any],
        errors: Errors,
        failures: dict[int, str],
        present: list[bool],
        show_progress: bool,
        place: Place,
    ) -> Iterator[list[NDArray[Any]]]:
        op, total = type(self).__name__, len(inputs) if isinstance(inputs, Sized) else None
        batch: list[NDArray[Any]] = []
        bar = progress(inputs, description=op, enabled=show_progress, total=total)
        for row, source in enumerate(bar):
            if source is None:
                present.append(False)
                continue
            try:
                batch.append(self._decode(source))
                present.append(True)
            except (OSError, Unreadable) as error:
                reason = f"{labelled(place(row), source)} must be {self._noun}; got {error}"
                if errors == "raise":
                    raise ValueError(f"{op}: {reason}") from error
                failures[row] = reason
                present.append(False)
            if len(batch) == self._batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _identity(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def _decode(self, source: Any) -> NDArray[Any]:
        raise NotImplementedError

    def _vectors(self, decoded: list[NDArray[Any]]) -> NDArray[np.float32]:
        raise NotImplementedError


def labelled(place: str, source: Any) -> str:
    """Return the place of an input with the name of its file, if it is one."""
    return f"{place} ({os.fspath(source)!r})" if isinstance(source, (str, os.PathLike)) else place


def _place(row: int) -> str:
    return f"inputs[{row}]"
