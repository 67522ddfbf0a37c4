"""What was acknowledged, on disk: an append-only file that survives the process.

The first line names the format. Every other line is one group of feedback, ``crc32 length json``,
numbers in eight hexadecimal digits, the JSON ``[[user, [[item, value], ...]], ...]``. A group is
written and synchronised before the next is, so a crash leaves at most the last line unfinished.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from recfuse.errors import FormatError
from recfuse.service.labels import Label

__all__ = ["Group", "Journal"]

Group = list[tuple[Label, list[tuple[Label, float]]]]
_HEADER = b"recfuse journal 1\n"
_USERS_PER_LINE = 1000


class Journal:
    """An open journal, which no other process may open meanwhile.

    Parameters
    ----------
    path : Path
        Made where there is none.

    Raises
    ------
    FormatError
        If it is no journal, or is damaged before its last line.
    OSError
        If it cannot be written, or another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = self._locked(path)
        self._end = 0
        self.failed: OSError | None = None

    @staticmethod
    def _locked(path: Path) -> int:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            raise OSError(
                f"serve: journal must be free; got {str(path)!r}, which another process has open"
            ) from error
        return file

    def replay(self) -> Iterator[Group]:
        """Yield the groups of the file, and cut off an unfinished last one."""
        good = 0
        bad: int | None = None
        with os.fdopen(os.dup(self._file), "rb") as lines:
            lines.seek(0)
            for number, line in enumerate(lines):
                if number == 0:
                    if line != _HEADER and not _HEADER.startswith(line):
                        raise FormatError(f"serve: {str(self.path)!r} must be a journal of recfuse")
                    good = len(line) if line == _HEADER else 0
                    continue
                group = _parsed(line)
                if group is None:
                    bad = good if bad is None else bad
                elif bad is not None:
                    raise FormatError(
                        f"serve: {str(self.path)!r} must be undamaged before its end; got another "
                        f"line at byte {bad}"
                    )
                else:
                    good += len(line)
                    yield group
        if bad is not None and _has_more(line):
            raise FormatError(
                f"serve: {str(self.path)!r} must be undamaged before its end; got another line at "
                f"byte {bad}"
            )
        os.ftruncate(self._file, good)
        if good == 0:
            os.pwrite(self._file, _HEADER, 0)
            good = len(_HEADER)
        os.fsync(self._file)
        _sync_folder(self.path)
        self._end = good

    def append(self, group: Group) -> None:
        """Write one group, and return when the disk has it.

        Raises
        ------
        OSError
            If that cannot be; the file is then as it was, or no longer to be written.
        """
        if self.failed is not None:
            raise OSError(f"journal failed before: {self.failed}")
        line = _line(group)
        try:
            _write(self._file, line, self._end)
        except OSError:
            self._undo()
            raise
        try:
            os.fsync(self._file)
        except OSError as error:
            self.failed = error  # what the disk has is unknown from now on
            raise
        self._end += len(line)

    def _undo(self) -> None:
        try:
            os.ftruncate(self._file, self._end)
        except OSError as error:
            self.failed = error

    def rewrite(self, groups: Iterable[Group]) -> None:
        """Put a file of these groups in the place of this one, in one step."""
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name, suffix=".part")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            end = 0
            for line in (_HEADER, *map(_line, groups)):
                _write(handle, line, end)
                end += len(line)
            os.fsync(handle)
            Path(name).replace(self.path)
        except BaseException:
            os.close(handle)
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(self.path)
        os.close(self._file)
        self._file, self._end = handle, end

    def close(self) -> None:
        """Give the file back; what was appended is on disk already."""
        os.close(self._file)


def in_groups(users: Iterable[tuple[Label, list[tuple[Label, float]]]]) -> Iterator[Group]:
    """Yield users in groups of a line's size."""
    group: Group = []
    for user in users:
        group.append(user)
        if len(group) == _USERS_PER_LINE:
            yield group
            group = []
    if group:
        yield group


def _line(group: Group) -> bytes:
    text = json.dumps(group, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %08x %b\n" % (zlib.crc32(text), len(text), text)


def _parsed(line: bytes) -> Group | None:
    """Return what a line says, None where it is damaged."""
    if not line.endswith(b"\n") or line[8:9] != b" " or line[17:18] != b" ":
        return None
    text = line[18:-1]
    try:
        if line[:17] != b"%08x %08x" % (zlib.crc32(text), len(text)):
            return None
        found: Any = json.loads(text)
        return [
            (_label(user), [(_label(item), float(value)) for item, value in events])
            for user, events in found
        ]
    except (ValueError, TypeError, RecursionError):
        return None


def _has_more(line: bytes) -> bool:
    """Whether a damaged line is longer than it says: the end of its own is gone, not a part."""
    try:
        return len(line) > 19 + int(line[9:17], 16)
    except ValueError:
        return len(line) > 17


def _label(value: Any) -> Label:
    if type(value) not in (int, str):
        raise TypeError(f"an id must be a number or text; got {type(value).__name__}")
    label: Label = value
    return label


def _write(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
