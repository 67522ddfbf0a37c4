"""Files whose checksums are right and whose contents are not: FormatError, an answer, no crash."""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recfuse
from recfuse import storage
from recfuse.errors import FormatError
from recfuse.serving import Retriever

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "data" / "model_files" / f"v{storage.VERSION}"


def load_fuzzer() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz", TESTS / "fuzz" / "fuzz_model_file.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzzer = load_fuzzer()
# Numbers of a hostile file overflow; that is no harm.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture
def ask(tmp_path, monkeypatch) -> Callable[[bytes], None]:
    """Load bytes in every way that there is, and ask what loads."""
    monkeypatch.setattr(storage, "CHECKED_BYTES", storage.CHECKED_BYTES)  # the fuzzer sets it
    monkeypatch.setattr(os, "fsync", lambda _: None)  # of thousands of files
    return lambda data: fuzzer.run_one(data, tmp_path / "model")


def test_what_the_fuzzers_found(ask):
    inputs = sorted((TESTS / "fuzz" / "corpus").iterdir())
    assert len(inputs) > 30
    for path in inputs:
        ask(path.read_bytes())


PIPELINES = ["events", "shop", "requests"]


@pytest.mark.parametrize("name", ["labelled", "multimodal", "retriever", *PIPELINES])
def test_cut_short_or_changed(name, tmp_path):
    good = (GOLDEN / f"{name}.recfuse").read_bytes()
    path = tmp_path / "model"
    for position in range(0, len(good), 101):
        flipped = bytearray(good)
        flipped[position] ^= 0x10
        for data in (good[:position], bytes(flipped)):
            path.write_bytes(data)
            for load in (recfuse.load, Retriever.load):
                with pytest.raises(FormatError):
                    load(path)


WRONG: tuple[Any, ...] = (
    None,
    -1,
    2**63,
    2**200,
    1e308,
    "",
    "estimator",
    [],
    {},
    {"array": "nothing"},
    {"float": []},
    {"csr": [], "shape": [-1, 2**70]},
    {"object": "Popularity", "state": {"__class__": 3, "fit": 1}},
    {"labels": {}},
    {"column": []},
    {"dict": {"text": {"object": "Pipeline", "state": {"steps": 7, "steps_": {"list": []}}}}},
    {"list": [{"object": "EventReader", "state": {"user": 1, "item": "what", "users_": 3}}]},
)


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items: Any = enumerate(tree) if isinstance(tree, list) else ()
    for key, value in tree.items() if isinstance(tree, dict) else items:
        yield from nodes(value, (*path, key))


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(tree)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def as_input(path: Path) -> bytes:
    return b"\0" + path.read_bytes()


@pytest.mark.parametrize(
    "name", ["biases", "labels", "labelled", "multimodal", "retriever", *PIPELINES]
)
def test_descriptions_of_anything(name, ask, tmp_path, rng):
    file = storage.open_file(GOLDEN / f"{name}.recfuse")
    arrays = dict(file.arrays)
    pairs = [(path, wrong) for path in nodes(file.metadata) if path for wrong in WRONG]
    for at in rng.permutation(len(pairs))[:60]:
        path, wrong = pairs[at]
        changed = replaced(file.metadata, path, wrong)
        storage.write(tmp_path / "forged", arrays, changed, kind=file.kind)
        ask(as_input(tmp_path / "forged"))


def wrong_arrays(array: Any) -> Iterator[Any]:
    yield array[:0]
    yield array[:-1]
    yield np.zeros((0, 1 << 40), np.float32)
    yield np.array(["x"] * len(array), object)
    if array.dtype != object:
        yield array[None]
        for value in (-1, 127, 2**31 - 1, -(2**63)):
            with np.errstate(all="ignore"):
                yield np.full(array.shape, value).astype(array.dtype)
        yield array.astype(np.float64)
        yield array.astype(np.int8)
        yield np.asfortranarray(array).T
    if array.dtype.kind == "f":
        yield np.full_like(array, np.nan)
        yield np.full_like(array, np.inf)


@pytest.mark.parametrize("name", ["labelled", "multimodal", "retriever", *PIPELINES])
def test_arrays_of_anything(name, ask, tmp_path):
    file = storage.open_file(GOLDEN / f"{name}.recfuse")
    arrays = dict(file.arrays)
    for changed, array in arrays.items():
        for wrong in wrong_arrays(array):
            storage.write(
                tmp_path / "forged", {**arrays, changed: wrong}, file.metadata, kind=file.kind
            )
            ask(as_input(tmp_path / "forged"))


@pytest.mark.parametrize("depth", [100, 400])
def test_deep_descriptions(ask, tmp_path, depth):
    file = storage.open_file(GOLDEN / "als.recfuse")
    deep: Any = 0
    for _ in range(depth):
        deep = {"list": [deep]}
    metadata = replaced(file.metadata, ("estimator", "state", "alpha"), deep)
    storage.write(tmp_path / "deep", dict(file.arrays), metadata, kind=file.kind)
    ask(as_input(tmp_path / "deep"))
