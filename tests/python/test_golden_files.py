"""Model files of every format that there has been: they load for ever, with the same answers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recfuse
from recfuse import storage
from recfuse.serving import Retriever

FOLDER = Path(__file__).parents[1] / "data" / "model_files"
VERSIONS = sorted(path.name for path in FOLDER.glob("v*"))


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("make_golden_files", FOLDER / "make.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


make = load_script()


def test_every_format_has_its_files():
    assert [f"v{version}" for version in range(1, storage.VERSION + 1)] == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_arrays(version):
    file = storage.open_file(FOLDER / version / "arrays.recfuse", verify=True)
    assert file.version == int(version[1:])
    assert file.metadata == {"name": "金", "list": [1, 2.5, None, True]}
    expected = make.arrays()
    assert list(file.arrays) == list(expected)
    for name, array in expected.items():
        assert file.arrays[name].dtype == array.dtype
        assert file.arrays[name].tolist() == array.tolist()


def answers_of(version: str) -> dict[str, Any]:
    return json.loads((FOLDER / version / "answers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version in VERSIONS for name in answers_of(version)]
)
def test_golden_models(version, name):
    if name == "shop":
        pytest.importorskip("sklearn")  # splits its titles into words
    ids, scores = make.asked(recfuse.load(FOLDER / version / f"{name}.recfuse"))
    expected = answers_of(version)[name]
    assert ids == expected[0]
    # Z-scores come from a matrix product of the BLAS at hand, folded factors from other sums on
    # every instruction set.
    tolerance = 1e-5 if name in ("multimodal", "shop", "events") else 0
    np.testing.assert_allclose(scores, expected[1], rtol=tolerance)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["als", "biases", "labelled"])
def test_golden_models_as_retrievers(version, name):
    answers = answers_of(version)[name]
    assert make.asked_rows(Retriever.load(FOLDER / version / f"{name}.recfuse")) == tuple(answers)


def test_a_golden_toplist_as_a_retriever():
    answers = answers_of("v2")["toplist"]
    assert make.asked_rows(Retriever.load(FOLDER / "v2" / "toplist.recfuse")) == tuple(answers)


def test_golden_pipelines_as_retrievers():
    """The search is in the file of a pipeline, too: for C++, C and a `Retriever`."""
    folder = FOLDER / "v2"
    events = recfuse.load(folder / "events.recfuse")
    retriever = Retriever.load(folder / "events.recfuse")
    users = ["ann", "eve", "王"]
    for got, expected in zip(
        retriever.recommend(users, 3), events.recommend(users, 3), strict=True
    ):
        assert got.tolist() == expected.tolist()
    requests = recfuse.load(folder / "requests.recfuse")
    about = requests.encode({"about": {name: x[:2] for name, x in make.GENRES.items()}}).vectors
    vectors = {"about": about["about"], "place": np.eye(2, 3)}
    got = Retriever.load(folder / "requests.recfuse").search(vectors, 3)
    expected = requests.index.topk(vectors, 3, weights={"about": 0.75, "place": 0.25})
    for a, b in zip(got, expected, strict=True):
        assert a.tolist() == b.tolist()
