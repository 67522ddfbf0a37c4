"""Vectors on disk, under a name that is a hash of everything that decides them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.errors import FormatError

__all__ = ["VectorCache"]

_ROWS = 4096  # rows hashed at a time, so that a memory-mapped array is never loaded whole


class VectorCache:
    """A folder of .npy files; `parts` are the model and the options."""

    def __init__(self, folder: str | os.PathLike[str], parts: Iterable[bytes]) -> None:
        self._folder = Path(folder)
        digest = hashlib.sha256()
        for part in parts:
            _update(digest, part)
        self._encoder = digest.digest()

    @property
    def encoder(self) -> str:
        """Hash of the model and the options."""
        return self._encoder.hex()

    def path(self, contents: Iterable[tuple[str, NDArray[Any]]]) -> Path:
        """Return where the vectors of these inputs are or will be."""
        digest = hashlib.sha256(self._encoder)
        for name, array in contents:
            _update(digest, f"{name} {array.dtype.str} {array.shape}".encode())
            for start in range(0, len(array), _ROWS):
                rows = array[start : start + _ROWS]
                if rows.dtype == object:
                    for text in rows.flat:
                        _update(digest, text.encode())
                else:
                    digest.update(np.ascontiguousarray(rows).data)
        return self._folder / f"{digest.hexdigest()}.npy"

    def load(self, path: Path) -> NDArray[Any] | None:
        """Return the stored vectors, or None where there are none yet."""
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except FileNotFoundError:
            return None
        except (ValueError, EOFError) as error:
            raise FormatError(
                f"encode: cache must hold whole .npy files; got {str(path)!r}: {error}. Delete it."
            ) from error

    def store(self, path: Path, vectors: NDArray[Any]) -> None:
        """Write a new file and put it in place at once, so that no reader sees half of it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, vectors, allow_pickle=False)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _update(digest: Any, part: bytes) -> None:
    # With its length before it, no two lists of parts give the same stream of bytes.
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)
