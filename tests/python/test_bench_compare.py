"""benchmarks/compare.py tells a regression from the spread."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "compare.py"
    if not path.is_file():
        pytest.skip(f"no {path}")
    spec = importlib.util.spec_from_file_location("compare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare"] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def results(
    seconds: tuple[float, float, float],
    *,
    cpu: str = "one",
    ratios: tuple[float, float, float] = (1.9, 2.0, 2.1),
    name: str = "q1",
) -> dict[str, Any]:
    ours = {"name": "recfuse"} | dict(zip(("low", "median", "high"), seconds, strict=True))
    keys = ("ratio_low", "ratio_median", "ratio_high")
    peer = {"name": "a"} | dict(zip(keys, ratios, strict=True))
    case = {"op": "topk", "name": name, "contenders": [ours, peer], "best_peer": "a"}
    return {"machine": {"cpu": cpu, "threads": 2, "isa": "avx2"}, "cases": [case]}


OLD = results((0.9, 1.0, 1.1))


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (OLD, 0),
        (results((1.15, 1.2, 1.3)), 1),
        (results((0.4, 0.5, 0.6)), 0),
        (results((1.05, 1.2, 1.3)), 0),  # the quartiles meet
        (results((1.101, 1.02, 1.2)), 0),  # less than the tolerance
        (results((9.0, 9.1, 9.2), cpu="two"), 0),  # a slower machine, the same ratio
        (results((0.1, 0.1, 0.1), cpu="two", ratios=(1.0, 1.1, 1.2)), 1),
        (results((1.0, 1.0, 1.0), name="q2"), 2),
    ],
)
def test_compare_exits_1_on_a_regression_beyond_the_spread(
    compare: ModuleType, tmp_path: Path, new: dict[str, Any], code: int
) -> None:
    (tmp_path / "old.json").write_text(json.dumps(OLD))
    (tmp_path / "new.json").write_text(json.dumps(new))
    assert compare.main([str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == code


def test_compare_reads_what_pytest_benchmark_writes(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = results((1.15, 1.2, 1.3))
    wrapped = {
        "machine_info": {"recfuse": new["machine"]},
        "benchmarks": [{"extra_info": {"recfuse": case}} for case in new["cases"]],
    }
    (tmp_path / "old.json").write_text(json.dumps(OLD))
    (tmp_path / "new.json").write_text(json.dumps(wrapped))
    assert compare.main([str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == 1
    assert "REGRESSION" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", '{"benchmarks": [{}]}', "3"])
def test_compare_refuses_other_files(
    compare: ModuleType, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert compare.main([str(path), str(path)]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_compare_reports_a_missing_file(compare: ModuleType, tmp_path: Path) -> None:
    assert compare.main([str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
