"""The report on data, against counts by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.sparse as sp

from recfuse.interactions import Interactions
from recfuse.preprocess import check

NAN, INF = np.nan, np.inf


def counts(report, subject):
    return {name: found["count"] for name, found in report.as_dict()[subject].items()}


def test_every_fault_is_counted():
    events = Interactions.from_arrays(
        ["王", "王", "b", "b", "b"], [0, 0, 1, 2, 3], values=[1, 0, -2, 3, 4],
        user_labels=["王", "b", "c"], item_labels=[0, 1, 2, 3, 4],
    )  # fmt: skip
    text = [[1, 0], [0, -0.0], [1, -0.0], [INF, NAN]]  # no row for item 4
    profile = np.zeros((3, 0), np.float32)
    report = check(events, {"text": text}, {"profile": profile})
    assert counts(report, "interactions") == {
        "NaN": 0, "infinite": 0, "out of range": 0, "value 0 or less": 2, "repeated pairs": 1,
        "users without events": 1, "items without events": 1,
    }  # fmt: skip
    assert report.as_dict()["items['text']"] == {
        "NaN": {"count": 1, "of": 8},
        "infinite": {"count": 1, "of": 8},
        "zero vectors": {"count": 1, "of": 4},
        "repeated vectors": {"count": 1, "of": 4},
        "out of range": {"count": 1, "of": 5},
        "items covered": {"count": 2, "of": 5},
        "events covered": {"count": 3, "of": 5},
    }
    assert counts(report, "users['profile']")["users covered"] == 0
    assert not report.ok
    assert [f.check for f in report.findings if f.is_error] == ["NaN", "infinite", "out of range"]
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
    lines = str(report).splitlines()
    assert len(lines) == 1 + len(report.findings)
    assert sum(line.endswith("  error") for line in lines) == 3
    assert lines[8].split() == ["items['text']", "NaN", "1", "8", "12.5%", "error"]


@pytest.mark.parametrize("form", ["csr", "coo", "csc"])
def test_matrices_with_faults(form):
    matrix = sp.coo_array(
        (np.array([1, NAN, INF, 0], np.float32), ([0, 0, 1, 1], [0, 1, 1, 1])), shape=(3, 4)
    )
    if form == "csr":  # unsummed, as data come
        matrix = sp.csr_array((matrix.data, matrix.col, [0, 2, 4, 4]), shape=(3, 4))
        matrix.indices[0] = 9
    elif form == "coo":
        matrix.coords[1][0] = -1
    else:
        matrix = sp.csc_array(matrix)  # sums the pair of inf and 0
    found = counts(check(matrix), "interactions")
    assert (found["NaN"], found["infinite"]) == (1, 1)
    assert found["out of range"] == (0 if form == "csc" else 1)
    assert found["repeated pairs"] == (0 if form == "csc" else 1)
    assert (found["users without events"], found["items without events"]) == (
        1, 2 if form == "csc" else 3,
    )  # fmt: skip


def test_sound_data_are_ok(rng):
    likes = sp.csr_array((rng.random((20, 30)) < 0.3).astype(np.float32))
    report = check(likes, {"text": rng.normal(size=(30, 8)).astype(np.float32)})
    assert report.ok
    found = counts(report, "items['text']")
    assert (found["items covered"], found["events covered"]) == (30, likes.nnz)
    assert found["repeated vectors"] == 0
    assert check(items={"a": np.zeros((0, 3))}).ok


def test_repeated_vectors_are_found_across_blocks(rng, monkeypatch):
    monkeypatch.setattr("recfuse.preprocess._matrices._BLOCK_ELEMENTS", 8)
    x = rng.integers(0, 2, (40, 4)).astype(np.float32)
    usable = x[x.any(axis=1)]
    found = counts(check(items={"x": x}), "items['x']")
    assert found["repeated vectors"] == len(usable) - len(np.unique(usable, axis=0))
    assert found["zero vectors"] == 40 - len(usable)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="check: interactions must be given"):
        check()
    with pytest.raises(TypeError, match="check: interactions must be Interactions or sparse"):
        check(np.ones((2, 2)))
    with pytest.raises(TypeError, match="check: items must map modality to array; got list"):
        check(items=[1])
    with pytest.raises(ValueError, match=r"check: items\['t'\] must have 2 dimensions"):
        check(items={"t": [1.0]})
    broken = sp.csr_array(np.eye(2))
    broken.indptr[1] = 5
    with pytest.raises(ValueError, match="must have an indptr that counts its indices"):
        check(broken)
