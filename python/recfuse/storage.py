"""The model file: named arrays and JSON metadata, memory-mappable, checksummed, without code.

The layout is safetensors [1]_, so the safetensors library and other languages can read the arrays:
8 bytes of header length (little endian), the JSON header padded with spaces, the arrays. Beyond
that layout, and within it:

- every array starts at a multiple of 64 bytes; the gaps are uint8 tensors named ``#0``, ``#1``...,
  because the layout allows no holes;
- an array of strings is two tensors, ``name#utf8`` (bytes) and ``name#offsets`` (int64, n + 1);
- the header's ``__metadata__`` carries the format version, the kind of file, the caller's metadata
  as JSON, the SHA-256 of every array, and the SHA-256 of the header (with that digest as zeros).

Format 1, which is read for ever, has one SHA-256 of all arrays and gaps together.

References
----------
.. [1] https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap as memory_map
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from recfuse._safetensors import (
    ALIGNMENT,
    DTYPE_NAMES,
    MAX_DIMENSIONS,
    MAX_HEADER,
    NO_DIGEST,
    build_header,
    check_header,
    check_payload,
    is_gap,
    layout,
    parse_json,
    view_arrays,
)
from recfuse._stored import StoredArrays
from recfuse.errors import FormatError

__all__ = ["StoredFile", "open_file", "read", "write"]

VERSION = 2
# Files up to this size are checked whole when they are opened; what is larger would take too long.
CHECKED_BYTES = 8 << 20

Array = NDArray[Any]


def write(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    kind: str = "model",
) -> None:
    """Write a file in one step: a reader sees the old file or the whole new one, never a part.

    Parameters
    ----------
    path : str or path-like
        An existing file is replaced. A symbolic link keeps pointing to the file.
    arrays : mapping of str to array
        Booleans, integers or floats of 16 to 64 bits, of any shape, layout and byte order; or 1-D
        arrays of strings. Names must not contain ``#``.
    metadata : mapping of str to JSON values
        No NaN or infinity.
    kind : str, default='model'
        What the file is; `read` can insist on it.

    Raises
    ------
    TypeError
        If `path` is no path, an array has another dtype (object labels must all be `str`), or the
        metadata are no JSON.
    ValueError
        If a name is empty, starts with ``__`` or contains ``#``; if the metadata contain NaN, or
        name and metadata take more than 16 MiB; if a string is no valid Unicode.
    OSError
        If the file cannot be written. Nothing is left behind then, and an old file stays as it was.

    Examples
    --------
    >>> import tempfile, os, numpy as np
    >>> from recfuse import storage
    >>> path = os.path.join(tempfile.mkdtemp(), "model.recfuse")
    >>> storage.write(path, {"factors": np.eye(2, dtype="f4")}, {"name": "als"})
    >>> arrays, metadata = storage.read(path)
    >>> metadata, arrays["factors"].tolist()
    ({'name': 'als'}, [[1.0, 0.0], [0.0, 1.0]])
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"write: path must be a path; got {type(path).__name__}")
    tensors = dict(_tensors(arrays))
    entries = layout(tensors)
    facts = {
        "recfuse.format": str(VERSION),
        "recfuse.kind": kind,
        "recfuse.metadata": _metadata_json(metadata),
        "recfuse.checksums": json.dumps(dict.fromkeys(tensors, NO_DIGEST)),
        "recfuse.header_sha256": NO_DIGEST,
    }
    placeholder = build_header(facts, entries)
    with _replacing(Path(os.path.realpath(path))) as file:
        file.write(placeholder)
        facts["recfuse.checksums"] = json.dumps(_write_payload(file, tensors, entries))
        header = build_header(facts, entries)
        facts["recfuse.header_sha256"] = hashlib.sha256(header).hexdigest()
        file.seek(0)
        file.write(build_header(facts, entries))


@dataclass(frozen=True)
class StoredFile:
    """An open file of `write`.

    Attributes
    ----------
    arrays : mapping of str to ndarray
        In the order written, little endian, C order, 64-byte aligned; strings as object arrays.
        Looked at when asked for: FormatError, then, for booleans or strings that are none.
    metadata : dict
    kind : str
    version : int
        Of the format.
    size : int
        Bytes of the file.
    checked : bool
        Whether all arrays were compared with their checksums.
    """

    arrays: StoredArrays
    metadata: dict[str, Any]
    kind: str
    version: int
    size: int
    checked: bool


def read(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    mmap: bool = True,
    verify: bool | None = None,
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a file that `write` made, all of its strings included.

    Parameters
    ----------
    path, kind, mmap, verify
        As `open_file`.

    Returns
    -------
    arrays : dict of str to ndarray
        In the order written, little endian, C order, 64-byte aligned; strings as object arrays.
    metadata : dict

    Raises
    ------
    FormatError, OSError
        As `open_file`; FormatError also for booleans or strings that are none.
    """
    file = open_file(path, kind=kind, mmap=mmap, verify=verify)
    try:
        return dict(file.arrays), file.metadata
    except FormatError as error:
        raise FormatError(f"read: {path} {error}") from error.__cause__


def open_file(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    mmap: bool = True,
    verify: bool | None = None,
) -> StoredFile:
    """Open a file that `write` made, which takes the same time whatever its size.

    Parameters
    ----------
    path : str or path-like
    kind : str, optional
        Refuse any other kind of file.
    mmap : bool, default=True
        Map the file: pages are read when touched and shared between processes, and the arrays are
        read-only. False reads everything into memory; the arrays are then writable.
    verify : bool, optional
        Compare the checksums of the arrays, which reads the file once. By default files of up to
        8 MiB are compared. The header, which says where the arrays lie, always is; without
        checksums, damage inside an array changes its values unseen.

    Returns
    -------
    StoredFile

    Raises
    ------
    FormatError
        If the file is damaged, cut short, longer than it says, of a newer format, of another kind,
        or no such file at all (a pickle, a zip archive). No size in the file is believed before it
        is compared with the size of the file.
    OSError
        If the file cannot be opened or read.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise FormatError(f"read: {path} must be a recfuse file; got {size} bytes")
        data = _map(file) if mmap else _load(file, size)
    try:
        return _parse(data, kind, size <= CHECKED_BYTES if verify is None else verify)
    except FormatError as error:
        raise FormatError(f"read: {path} {error}") from error.__cause__


def _map(file: IO[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ), np.uint8)


def _load(file: IO[bytes], size: int) -> NDArray[np.uint8]:
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    data = buffer[start : start + size]
    got = file.readinto(data.data)  # type: ignore[attr-defined]
    return data[:got]


def _parse(data: NDArray[np.uint8], kind: str | None, verify: bool) -> StoredFile:
    length = int.from_bytes(data[:8].tobytes(), "little")
    if not 2 <= length <= min(len(data) - 8, MAX_HEADER):
        raise FormatError(f"must be a recfuse file; got {_looks_like(data)}")
    if (8 + length) % ALIGNMENT:
        raise FormatError("must be a recfuse file; got arrays that are not aligned")
    header = parse_json(data[8 : 8 + length].tobytes())
    facts = header.pop("__metadata__", None)
    if not isinstance(facts, dict) or "recfuse.format" not in facts:
        raise FormatError("must be a recfuse file; got one by another program")
    version = facts["recfuse.format"]
    if version not in [str(known) for known in range(1, VERSION + 1)]:
        raise FormatError(
            f"must have format {VERSION} or an older one; got {version!r:.99}. "
            "A newer recfuse may read it."
        )
    check_header(data[: 8 + length].tobytes(), facts)
    found = facts.get("recfuse.kind")
    if not isinstance(found, str) or (kind is not None and found != kind):
        raise FormatError(f"must be of kind {kind!r}; got {found!r:.99}")
    metadata = parse_json(str(facts.get("recfuse.metadata")))
    payload = data[8 + length :]
    views = view_arrays(header, payload)
    if verify:
        check_payload(facts, views, payload)
    return StoredFile(StoredArrays(views), metadata, found, int(version), len(data), verify)


def _looks_like(data: NDArray[np.uint8]) -> str:
    start = data[:4].tobytes()
    if start[:2] == b"PK":
        return "a zip archive"
    if start[:1] == b"\x80" and start[1] <= 5:
        return "a pickle, which recfuse never reads"
    return f"bytes {start!r}"


def _tensors(arrays: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    """Yield what is stored, by name: each array little endian and contiguous, strings in two."""
    for name, value in arrays.items():
        if not isinstance(name, str) or not name or "#" in name or name.startswith("__"):
            raise ValueError(
                f"write: names must be non-empty, without '#' and not begin with '__'; got {name!r}"
            )
        array = np.asarray(value)
        if array.dtype.kind in "OU":
            yield from _string_tensors(name, array)
            continue
        little = array.dtype.newbyteorder("<")
        if little not in DTYPE_NAMES:
            raise TypeError(
                f"write: arrays[{name!r}] must be bool, integer, float or str; got {array.dtype}"
            )
        if array.ndim > MAX_DIMENSIONS:
            raise ValueError(
                f"write: arrays[{name!r}] must have at most {MAX_DIMENSIONS} dimensions; "
                f"got {array.ndim}"
            )
        yield name, np.asarray(array, little, order="C")


def _string_tensors(name: str, array: Array) -> Iterator[tuple[str, Array]]:
    if array.ndim != 1:
        raise ValueError(f"write: arrays[{name!r}] must have 1 dimension; got {array.shape}")
    strings = array.tolist()
    for row, string in enumerate(strings):
        if not isinstance(string, str):
            kind = type(string).__name__
            raise TypeError(f"write: arrays[{name!r}] must hold only str; got {kind} in row {row}")
    try:
        encoded = [string.encode("utf-8") for string in strings]
    except UnicodeEncodeError as error:
        raise ValueError(
            f"write: arrays[{name!r}] must be valid Unicode; got {error.object!r:.99}"
        ) from None
    offsets = np.zeros(len(encoded) + 1, np.dtype("<i8"))
    np.cumsum([len(part) for part in encoded], out=offsets[1:])
    yield f"{name}#utf8", np.frombuffer(b"".join(encoded), np.uint8)
    yield f"{name}#offsets", offsets


def _metadata_json(metadata: Mapping[str, Any]) -> str:
    if not isinstance(metadata, Mapping):
        raise TypeError(f"write: metadata must be a mapping; got {type(metadata).__name__}")
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
    except ValueError as error:
        raise ValueError(f"write: metadata must be finite JSON; got: {error}") from error
    except TypeError as error:
        raise TypeError(f"write: metadata must be JSON; got: {error}") from error
    return text


def _write_payload(
    file: IO[bytes], tensors: Mapping[str, Array], entries: Mapping[str, Any]
) -> dict[str, str]:
    """Write arrays and gaps; return the digest of every array."""
    digests = {}
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        if is_gap(name):
            file.write(bytes(end - begin))
            continue
        data = tensors[name].reshape(-1).view(np.uint8).data
        digests[name] = hashlib.sha256(data).hexdigest()
        file.write(data)
    return digests


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file beside `path` and move it there at the end; on any error remove it."""
    temporary = path.with_name(f".recfuse-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the renaming last through a loss of power; some file systems cannot, and need not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
