"""Vectors of single items on disk, by a hash of the encoder and of the item's content."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recfuse.errors import FormatError

__all__ = ["VectorStore"]

_AT_ONCE = 500  # SQLite takes at most 999 variables in older versions


class VectorStore:
    """One SQLite file: safe against crashes and against several writers; for use by one thread."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self._path, timeout=60)
        self._execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)")

    def close(self) -> None:
        self._connection.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Return the vectors that are there."""
        found: dict[bytes, NDArray[np.float32]] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = list(keys[start : start + _AT_ONCE])
            marks = ",".join("?" * len(some))
            rows = self._execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", some)
            found.update({bytes(key): np.frombuffer(data, "<f4") for key, data in rows})
        return found

    def put(self, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Add vectors, all or none."""
        rows = [(key, np.asarray(vector, "<f4").tobytes()) for key, vector in vectors.items()]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        except sqlite3.OperationalError:  # a full disk, a lock: not the file's fault
            raise
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _execute(self, query: str, values: Sequence[bytes] = ()) -> list[tuple[bytes, bytes]]:
        try:
            with self._connection:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> FormatError:
        return FormatError(
            f"encode_all: cache must be a file that encode_all made; "
            f"got {str(self._path)!r}: {error}. Delete it."
        )
