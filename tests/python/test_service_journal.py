"""The journal: what was appended is there again, whatever happened to its end."""

from __future__ import annotations

import asyncio
import os

import pytest

from recfuse.errors import FormatError
from recfuse.service.journal import Journal
from recfuse.service.sessions import Full, Sessions

GROUPS = [
    [("ann", [("tea", 1.0), ("milk", 0.0)])],
    [(7, [(9, -2.5)]), ("ünï\n", [("茶", 1e6)])],
    [("ann", [("tea", 3.0)])],
]


def written(path, groups=GROUPS):
    journal = Journal(path)
    list(journal.replay())
    for group in groups:
        journal.append(group)
    journal.close()


def read(path):
    journal = Journal(path)
    try:
        return list(journal.replay())
    finally:
        journal.close()


def test_groups_come_back(tmp_path):
    path = tmp_path / "journal"
    written(path)
    assert read(path) == GROUPS
    written(path, GROUPS[:1])
    assert read(path) == [*GROUPS, GROUPS[0]]
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_truncation_loses_only_what_is_cut(tmp_path):
    path = tmp_path / "journal"
    written(path)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        expected = sum(end <= size for end in ends[1:])
        assert read(path) == GROUPS[:expected]
        assert read(path) == GROUPS[:expected]  # the end is mended


def test_every_flipped_byte_is_told_or_is_the_end(tmp_path):
    path = tmp_path / "journal"
    written(path)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        if at < last or last + 9 <= at < last + 17:  # a length that no crash leaves
            if at >= last and damaged[at] > whole[at]:
                continue  # a longer one than the line has, as after a crash
            with pytest.raises(FormatError):
                read(path)
            assert path.read_bytes() == bytes(damaged)
        else:
            assert read(path) == GROUPS[:-1]


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / "notes"
    path.write_text("not a journal\n")
    with pytest.raises(FormatError, match="must be a journal"):
        read(path)
    assert path.read_text() == "not a journal\n"


def test_a_disk_that_refuses(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    journal = Journal(path)
    list(journal.replay())
    journal.append(GROUPS[0])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            journal.append(GROUPS[1])
    journal.append(GROUPS[2])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            journal.append(GROUPS[1])
    with pytest.raises(OSError, match="failed before"):
        journal.append(GROUPS[1])
    journal.close()
    assert read(path)[:2] == [GROUPS[0], GROUPS[2]]


def test_sessions_are_what_was_added(tmp_path, monkeypatch):
    """Those at once share a synchronisation; a full store refuses; a long journal is rewritten."""
    path = tmp_path / "journal"
    synchronised = 0
    fsync = os.fsync

    def counted(file):
        nonlocal synchronised
        synchronised += 1
        fsync(file)

    async def run():
        nonlocal synchronised
        sessions = Sessions(Journal(path), 1000)
        monkeypatch.setattr(os, "fsync", counted)
        adding = [sessions.add(f"u{i % 7}", [(f"i{i % 5}", float(i))]) for i in range(80)]
        await asyncio.gather(*adding)
        assert 1 <= synchronised <= 4
        with pytest.raises(Full):
            await sessions.add("more", [(i, 1.0) for i in range(966)])
        for _ in range(30):
            await sessions.add("u0", [(i, 1.0) for i in range(50)])
        before = {user: dict(sessions.of(user).values) for user in [f"u{i}" for i in range(7)]}
        await sessions.close()
        return before

    before = asyncio.run(run())
    size = path.stat().st_size

    async def again():
        sessions = Sessions(Journal(path), 1000)
        found = {user: dict(sessions.of(user).values) for user in before}
        await sessions.add("u1", [("last", 1.0)])
        await sessions.close()
        return found

    assert asyncio.run(again()) == before
    assert path.stat().st_size < size / 3
    asyncio.run(again())


def test_what_is_acknowledged_is_on_disk(tmp_path, monkeypatch):
    """Every group is synchronised after it is written, and counts only then."""
    path = tmp_path / "journal"
    done = []
    pwrite, fsync = os.pwrite, os.fsync

    def writing(file, data, at):
        done.append("write")
        return pwrite(file, data, at)

    def syncing(file):
        done.append("sync")
        fsync(file)

    async def run():
        sessions = Sessions(Journal(path), 1000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", writing)
            patch.setattr(os, "fsync", syncing)
            for n in range(3):
                done.clear()
                await sessions.add("ann", [(n, 1.0)])
                assert done == ["write", "sync"]
            patch.setattr(os, "fsync", lambda file: os.close(-1))
            with pytest.raises(OSError, match="descriptor"):
                await sessions.add("ann", [(7, 1.0)])
        assert sessions.of("ann").values == {0: 1.0, 1: 1.0, 2: 1.0} and sessions.events == 3
        await sessions.close()

    asyncio.run(run())


def test_a_rewritten_journal_has_one_owner_too(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path)
    list(journal.replay())
    journal.rewrite(GROUPS)
    with pytest.raises(OSError, match="another process has open"):
        Journal(path)
    journal.append(GROUPS[0])
    journal.close()
    assert read(path) == [*GROUPS, GROUPS[0]]


def test_those_at_once_have_one_room_together(tmp_path):
    async def run():
        sessions = Sessions(Journal(tmp_path / "journal"), 10)
        many = [sessions.add(f"u{n}", [(i, 1.0) for i in range(4)]) for n in range(3)]
        found = await asyncio.gather(*many, return_exceptions=True)
        assert found[:2] == [4, 4] and type(found[2]) is Full and sessions.events == 8
        assert await sessions.add("u0", [(0, 2.0), (1, 2.0)]) == 4  # nothing is promised any more
        await sessions.close()

    asyncio.run(run())
