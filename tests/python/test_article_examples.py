"""Every program of examples/articles runs to its end: each checks itself against float64."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "articles"
PROGRAMS = {
    "000_books_by_cover_text_and_voice": [
        "onnxruntime",
        "pandas",
        "sklearn",
        "torch",
        "onnxscript",
    ],
    "001_weighted_sum_stacking_deep": ["sklearn"],
    "002_image_and_text_network": ["onnxruntime", "torch", "onnxscript"],
    "003_towers": ["onnxruntime", "torch", "onnxscript"],
    "004_cross_modal_regression": [],
}


@pytest.fixture(autouse=True)
def beside_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


def test_every_program_is_run():
    assert {path.stem for path in FOLDER.glob("0*.py")} == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name, capsys):
    for package in PROGRAMS[name]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}: pip install 'recfuse[features,frames,onnx,train]'")
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out


def test_the_oracle_refuses_what_is_wrong():
    import oracle

    scores = np.array([[0.5, 2.0, 1.0]])
    oracle.assert_ranking(np.array([[1, 2]]), np.array([[2.0, 1.0]]), scores, "right")
    with pytest.raises(AssertionError, match="ids"):
        oracle.assert_ranking(np.array([[2, 1]]), np.array([[2.0, 1.0]]), scores, "wrong ids")
    with pytest.raises(AssertionError, match="scores"):
        oracle.assert_ranking(np.array([[1, 0]]), np.array([[2.0, 0.5]]), scores, "not the best")
    with pytest.raises(AssertionError, match="shape"):
        oracle.assert_close(np.zeros((2, 3)), np.zeros((2, 1)), "wrong shape")
    with pytest.raises(AssertionError, match="wrong by nan"):
        oracle.assert_close([np.nan], [0.0], "not a number")
