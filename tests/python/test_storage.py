from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recfuse import storage
from recfuse._safetensors import DTYPES
from recfuse.errors import FormatError, RecfuseError

METADATA = {"class": "als", "params": {"alpha": 1.5, "name": "多模态", "none": None}, "n": [1, 2]}


def small_arrays() -> dict[str, Any]:
    return {
        "factors": np.arange(6, dtype=np.float32).reshape(2, 3),
        "labels": np.array(["a", "二", ""], object),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 4), np.int64),
        "scalar": np.array(7, np.int8),
    }


def assert_equal(arrays: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tolist() == array.tolist()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "模型.recfuse"
    storage.write(path, small_arrays(), METADATA)
    return path


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("verify", [True, False])
def test_round_trip(file, mmap, verify):
    arrays, metadata = storage.read(file, mmap=mmap, verify=verify)
    assert_equal(arrays, small_arrays())
    assert metadata == METADATA
    for name, array in arrays.items():
        if name != "labels":
            assert array.flags.writeable is not mmap
            assert array.size == 0 or array.ctypes.data % 64 == 0


@given(
    arrays=st.dictionaries(
        st.text(min_size=1).filter(lambda name: "#" not in name and name[:2] != "__"),
        hnp.arrays(st.sampled_from(sorted(DTYPES.values())), hnp.array_shapes(min_side=0))
        | st.lists(st.text()).map(lambda strings: np.array([*strings, None], object)[:-1]),
        max_size=4,
    ),
)
def test_round_trip_of_any_arrays(tmp_path_factory, arrays):
    path = tmp_path_factory.getbasetemp() / "any.recfuse"
    storage.write(path, arrays, {})
    read, _ = storage.read(path)
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_layouts_and_byte_orders_are_stored_plainly(tmp_path):
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    read_only = base.copy()
    read_only.flags.writeable = False
    variants = {
        "fortran": np.asfortranarray(base),
        "strided": np.repeat(base, 2, axis=1)[:, ::2],
        "big": base.astype(">f4"),
        "read-only": read_only,
        "broadcast": np.broadcast_to(np.float32(3), (3, 4)),
        "unicode": np.array(["x", "yy"]),
    }
    storage.write(tmp_path / "m", variants, {})
    arrays, _ = storage.read(tmp_path / "m")
    for name in ("fortran", "strided", "big", "read-only"):
        assert arrays[name].dtype == "<f4"
        assert arrays[name].flags.c_contiguous
        np.testing.assert_array_equal(arrays[name], base)
    assert arrays["broadcast"].tolist() == [[3.0] * 4] * 3
    assert arrays["unicode"].tolist() == ["x", "yy"]


def test_the_same_content_gives_the_same_bytes(file, tmp_path):
    again = tmp_path / "again"
    storage.write(again, small_arrays(), METADATA)
    assert again.read_bytes() == file.read_bytes()


def test_the_safetensors_library_reads_it(file):
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load(file.read_bytes())
    np.testing.assert_array_equal(tensors["factors"], small_arrays()["factors"])
    assert bytes(tensors["labels#utf8"]).decode() == "a二"
    assert tensors["labels#offsets"].tolist() == [0, 1, 4, 4]
    assert tensors["empty"].shape == (0, 4)


@contextlib.contextmanager
def flipped(path: Path, position: int, bits: int) -> Iterator[None]:
    """Flip bits of one byte in place and back: writing the file anew costs a flush each time."""
    with path.open("r+b", buffering=0) as file:
        file.seek(position)
        good = file.read(1)
        for byte in (bytes([good[0] ^ bits]), good):
            file.seek(position)
            file.write(byte)
            if byte != good:
                yield


def test_every_flipped_byte_is_found(file):
    for position in range(file.stat().st_size):
        for bits in (0x01, 0x20, 0x80, 0xFF):
            with flipped(file, position, bits), pytest.raises(FormatError):
                storage.read(file, mmap=bool(position % 2))
    storage.read(file)


def test_unverified_a_flipped_byte_is_found_or_changes_one_array(file):
    start = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    expected = small_arrays()
    unseen = 0
    for position in range(file.stat().st_size):
        with flipped(file, position, 0xFF):
            try:
                arrays, metadata = storage.read(file, verify=False, mmap=False)
            except FormatError:
                continue
        unseen += 1
        assert position >= start  # the header is always checked
        assert metadata == METADATA
        assert [a.shape for a in arrays.values()] == [a.shape for a in expected.values()]
        changed = [n for n in expected if arrays[n].tolist() != expected[n].tolist()]
        assert len(changed) <= 1
    assert unseen > 0


@pytest.mark.parametrize("verify", [True, False])
def test_every_truncation_is_found(file, verify):
    size = file.stat().st_size
    with file.open("ab") as longer:
        longer.write(b"\0")
    with pytest.raises(FormatError, match="must end after"):
        storage.read(file, verify=verify)
    for length in reversed(range(size)):
        os.truncate(file, length)
        for mmap in (True, False):
            with pytest.raises(FormatError):
                storage.read(file, mmap=mmap, verify=verify)


def forge(path: Path, change: Any, *, payload: bytes = b"\0" * 64, version: str = "2") -> None:
    """Write a file whose checksums are right and whose header is whatever `change` makes of it."""
    facts = {
        "recfuse.format": version,
        "recfuse.kind": "model",
        "recfuse.metadata": "{}",
        "recfuse.header_sha256": "0" * 64,
    }
    if version == "1":
        facts["recfuse.sha256"] = hashlib.sha256(payload).hexdigest()
    else:
        facts["recfuse.checksums"] = RIGHT
    x = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
    header = {"__metadata__": facts, "x": x}
    change(header)
    if facts.get("recfuse.checksums") == RIGHT:
        facts["recfuse.checksums"] = json.dumps(
            {
                name: hashlib.sha256(payload[slice(*entry["data_offsets"])]).hexdigest()
                for name, entry in header.items()
                if name != "__metadata__" and name[0] != "#" and isinstance(entry, dict)
            }
        )
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    blank = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(blank).hexdigest()
    start, mark, rest = blank.partition(b'"recfuse.header_sha256":"')
    path.write_bytes(start + mark + digest.encode() + rest[64:] + payload)


RIGHT = "of the arrays"


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_forger_makes_good_files(tmp_path, version):
    forge(tmp_path / "m", lambda header: None, version=version)
    arrays, metadata = storage.read(tmp_path / "m")
    assert arrays["x"].tolist() == [0.0] * 16
    assert metadata == {}


HUGE = 2**63


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["x"].update(shape=[HUGE]), "arrays that fit the file"),
        (lambda h: h["x"].update(shape=[HUGE, 0], data_offsets=[0, 0]), "possible shapes|must end"),
        (lambda h: h["x"].update(shape=[HUGE, HUGE, HUGE, HUGE]), "arrays that fit the file"),
        (lambda h: h["x"].update(shape=[2**32, 2**32]), "arrays that fit the file"),  # wraps to 0
        (lambda h: h["x"].update(shape=[-16]), "arrays that fit the file"),
        (lambda h: h["x"].update(shape=[16.0]), "arrays that fit the file"),
        (lambda h: h["x"].update(shape=[True]), "arrays that fit the file"),
        (lambda h: h["x"].update(shape="16"), "arrays that fit the file"),
        (lambda h: h["x"].update(shape=16), "describe each array"),
        (lambda h: h["x"].update(shape=[1] * 40 + [16]), "arrays that fit the file"),
        (lambda h: h["x"].update(data_offsets=[0, HUGE]), "arrays that fit the file"),
        (lambda h: h["x"].update(shape=[HUGE // 4], data_offsets=[0, HUGE]), "fit the file"),
        (lambda h: h["x"].update(shape=[0], data_offsets=[64, 64]), "arrays in order"),
        (lambda h: h["x"].update(shape=[8], data_offsets=[0, 32]), "must end after 32 bytes"),
        (lambda h: h["x"].update(data_offsets=[0, 1, 2]), "describe each array"),
        (lambda h: h["x"].update(dtype="O"), "describe each array"),
        (lambda h: h["x"].update(dtype=["F32"]), "describe each array"),
        (lambda h: h["x"].pop("dtype"), "describe each array"),
        (lambda h: h.update(x=None), "describe each array"),
        (lambda h: h.update(y=h["x"]), "arrays in order"),  # two arrays share their bytes
        (lambda h: h.update({"x#utf8": h.pop("x")}), "int64 offsets"),
        (lambda h: h.update({"x#offsets": h.pop("x")}), "known parts of arrays"),
        (lambda h: h.update({"x#pickle": h.pop("x")}), "known parts of arrays"),
        (lambda h: h["__metadata__"].pop("recfuse.format"), "by another program"),
        (lambda h: h.pop("__metadata__"), "by another program"),
        (lambda h: h.update(__metadata__=[]), "by another program"),
        (
            lambda h: h["__metadata__"].update({"recfuse.format": "3"}),
            "format 2 or .*; got '3'. A newer",
        ),
        (
            lambda h: h["__metadata__"].update({"recfuse.format": 2}),
            "format 2 or an older one; got 2",
        ),
        (lambda h: h["__metadata__"].pop("recfuse.kind"), "of kind None; got None"),
        (
            lambda h: h["__metadata__"].update({"recfuse.metadata": '{"a":%s}' % ("1" * 5000)}),
            "damaged",
        ),
        (lambda h: h["__metadata__"].update({"recfuse.metadata": "[1]"}), "JSON object"),
        (lambda h: h["__metadata__"].update({"recfuse.metadata": '{"a":NaN}'}), "damaged"),
        (lambda h: h["__metadata__"].update({"recfuse.metadata": '{"\ud800'}), "damaged"),
        (lambda h: h["__metadata__"].update({"recfuse.metadata": None}), "damaged"),
        (lambda h: h["__metadata__"].update({"recfuse.metadata": '{"a":1,"a":2}'}), "damaged"),
        (lambda h: h["__metadata__"].update({"recfuse.metadata": "[" * 200_000}), "damaged"),
        (lambda h: h.update(check("x", "0" * 64, h)), "another checksum of 'x'"),
        (lambda h: h.update(check("x", "0" * 63, h)), "one checksum per array"),
        (lambda h: h.update(check("x", 0, h)), "one checksum per array"),
        (lambda h: h.update(check("y", "0" * 64, h)), "one checksum per array"),
        (lambda h: h["__metadata__"].pop("recfuse.checksums"), "damaged"),
        (lambda h: h.update({"#0": h.pop("x")}), "zeros between arrays"),
    ],
)
def test_forged_headers(tmp_path, change, message):
    forge(tmp_path / "m", change)
    with pytest.raises(FormatError, match=message):
        storage.read(tmp_path / "m")


def check(name: str, digest: Any, header: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata with a checksum of our own."""
    return {
        "__metadata__": {
            **header["__metadata__"],
            "recfuse.checksums": json.dumps({name: digest}),
        }
    }


def test_a_forged_checksum_of_the_first_format(tmp_path):
    def change(header: dict[str, Any]) -> None:
        header["__metadata__"]["recfuse.sha256"] = "0" * 64

    forge(tmp_path / "m", change, version="1")
    with pytest.raises(FormatError, match="another checksum"):
        storage.read(tmp_path / "m")
    assert storage.read(tmp_path / "m", verify=False)[0]["x"].tolist() == [0.0] * 16


def test_large_files_are_checked_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "CHECKED_BYTES", 1000)
    path = tmp_path / "m"
    storage.write(path, {"x": np.zeros(1000), "text": np.array(["abc"], object)}, {})
    assert not storage.open_file(path).checked
    with flipped(path, path.stat().st_size - 200, 0xFF):  # of the strings or of x
        storage.read(path)
        with pytest.raises(FormatError, match="another checksum of"):
            storage.read(path, verify=True)
    # What is asked for is checked, and nothing before.
    data = bytearray(path.read_bytes())
    data[data.rindex(b"abc")] = 0xFF
    path.write_bytes(data)
    file = storage.open_file(path)
    assert list(file.arrays) == ["x", "text"]
    with pytest.raises(FormatError, match="must have UTF-8 strings in 'text'"):
        file.arrays["text"]


def test_the_folder_is_synchronised_after_the_file_has_its_name(tmp_path, monkeypatch):
    synchronised = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synchronised.append((path, (tmp_path / "m").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    storage.write(tmp_path / "m", {}, {})
    (file, before), (folder, after) = synchronised
    assert (file.parent, before, folder, after) == (tmp_path, False, tmp_path, True)


@pytest.mark.parametrize(
    ("blob", "offsets"),
    [
        (b"ab", [0, 3]),
        (b"ab", [1, 2]),
        (b"ab", [0, 2, 1, 2]),
        (b"ab", [0, 2**63 - 1, -(2**63), 2]),  # differences that wrap around
        (b"ab", []),
        (b"\xff\xff", [0, 2]),
        ("二".encode(), [0, 1, 3]),  # cuts a character
    ],
)
def test_forged_strings(tmp_path, blob, offsets):
    table = np.array(offsets, "<i8").tobytes()
    gap = 64 - len(blob)

    def change(header: dict[str, Any]) -> None:
        end = 64 + len(table)
        del header["x"]
        header["x#utf8"] = {"dtype": "U8", "shape": [len(blob)], "data_offsets": [0, len(blob)]}
        header["#1"] = {"dtype": "U8", "shape": [gap], "data_offsets": [len(blob), 64]}
        header["x#offsets"] = {"dtype": "I64", "shape": [len(offsets)], "data_offsets": [64, end]}

    forge(tmp_path / "m", change, payload=blob + bytes(gap) + table)
    with pytest.raises(FormatError, match=r"rising offsets|UTF-8"):
        storage.read(tmp_path / "m")


def test_booleans_are_0_or_1_even_unverified(tmp_path):
    def change(header: dict[str, Any]) -> None:
        header["x"] = {"dtype": "BOOL", "shape": [64], "data_offsets": [0, 64]}

    forge(tmp_path / "m", change, payload=b"\x02" * 64)
    with pytest.raises(FormatError, match="booleans of 0 and 1"):
        storage.read(tmp_path / "m", verify=False)


def a_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", b"0" * 1000)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got 0 bytes"),
        (b"1234567", "got 7 bytes"),
        (pickle.dumps({"x": np.ones(3)}), "got a pickle, which recfuse never reads"),
        (a_zip(), "got a zip archive"),
        (b"\xff" * 8 + b"{}", "got bytes"),
        ((2**63).to_bytes(8, "little") + b"{}", "got bytes"),
        ((0).to_bytes(8, "little") + b" " * 56, "got bytes"),
        ((56).to_bytes(8, "little") + b" " * 56, "damaged"),
        ((56).to_bytes(8, "little") + b"[" * 56, "damaged"),
        ((56).to_bytes(8, "little") + b"[1]" + b" " * 53, "got list"),
        ((56).to_bytes(8, "little") + b"\xff" * 56, "damaged"),
        ((2).to_bytes(8, "little") + b"{}", "not aligned"),
    ],
)
def test_other_files(tmp_path, content, message):
    path = tmp_path / "m"
    path.write_bytes(content)
    for mmap in (True, False):
        with pytest.raises(FormatError, match=message):
            storage.read(path, mmap=mmap)
    assert issubclass(FormatError, RecfuseError)


def test_files_of_the_safetensors_library_are_refused(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file({"x": np.ones(3, np.float32)}, tmp_path / "m")
    with pytest.raises(FormatError):
        storage.read(tmp_path / "m")


def test_another_kind_is_refused(tmp_path):
    storage.write(tmp_path / "m", {}, {}, kind="index")
    assert storage.read(tmp_path / "m", kind="index") == ({}, {})
    with pytest.raises(FormatError, match="must be of kind 'model'; got 'index'"):
        storage.read(tmp_path / "m", kind="model")


@pytest.mark.parametrize(
    ("arrays", "metadata", "error", "message"),
    [
        ({"a#b": np.ones(1)}, {}, ValueError, "names must be non-empty"),
        ({"": np.ones(1)}, {}, ValueError, "names must be non-empty"),
        ({"__metadata__": np.ones(1)}, {}, ValueError, "names must be non-empty"),
        ({1: np.ones(1)}, {}, ValueError, "names must be non-empty"),
        ({"a": np.ones(1, complex)}, {}, TypeError, r"arrays\['a'\] must be .*; got complex128"),
        ({"a": np.ones(1, np.longdouble)}, {}, TypeError, "must be bool, integer, float or str"),
        ({"a": np.zeros(1, "M8[s]")}, {}, TypeError, "must be bool, integer, float or str"),
        ({"a": np.zeros(1, "S3")}, {}, TypeError, "must be bool, integer, float or str"),
        ({"a": np.array(["x", 1], object)}, {}, TypeError, "only str; got int in row 1"),
        ({"a": np.array([lambda: 0], object)}, {}, TypeError, "only str; got function in row 0"),
        ({"a": np.array([["x"]], object)}, {}, ValueError, r"1 dimension; got \(1, 1\)"),
        ({"a": np.array(["\ud800"], object)}, {}, ValueError, "must be valid Unicode"),
        ({"a": np.ones((1,) * 33)}, {}, ValueError, "at most 32 dimensions; got 33"),
        ({}, {"a": float("nan")}, ValueError, "metadata must be finite JSON"),
        ({}, {"a": object()}, TypeError, "metadata must be JSON"),
        ({}, {"a": "x" * (17 << 20)}, ValueError, "must take at most 16777216 bytes"),
        ({}, [1], TypeError, "metadata must be a mapping; got list"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, arrays, metadata, error, message):
    path = tmp_path / "m"
    storage.write(path, {"old": np.ones(2)}, {})
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        storage.write(path, arrays, metadata)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("target", [io.BytesIO(), io.StringIO(), None, 3])
def test_a_path_is_asked_for(target):
    with pytest.raises(TypeError, match="write: path must be a path; got "):
        storage.write(target, {}, {})


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "m"
    storage.write(path, {"old": np.ones(2)}, {})
    before = path.read_bytes()
    script = """
        import resource, sys, numpy as np
        from recfuse import storage
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            storage.write(sys.argv[1], {"new": np.ones(1_000_000)}, {})
        except OSError as error:
            print("OSError", error.errno)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("OSError")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "m"
    storage.write(path, {"old": np.ones(2)}, {})
    before = path.read_bytes()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.write(path, {"new": np.ones(2)}, {})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_a_missing_folder_or_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.write(tmp_path / "no" / "m", {}, {})
    with pytest.raises(FileNotFoundError):
        storage.read(tmp_path / "no")


def test_replacing_a_mapped_file_leaves_the_mapping(tmp_path):
    path, link = tmp_path / "m", tmp_path / "link"
    storage.write(path, {"x": np.ones(100_000)}, {})
    link.symlink_to(path)
    old, _ = storage.read(link)
    storage.write(link, {"x": np.zeros(100_000)}, {})
    assert link.is_symlink()
    assert old["x"].sum() == 100_000
    assert storage.read(path)[0]["x"].sum() == 0


def test_the_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o027)
    try:
        storage.write(tmp_path / "m", {}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o640
