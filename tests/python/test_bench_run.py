"""The benchmark as a command: one real run in real processes, cases, steps, arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recfuse.bench import run as run_module
from recfuse.bench.case import ids_and_scores
from recfuse.bench.cases import OPS, cases_of, rebuild
from recfuse.bench.cases.fuse_topk import FuseTopk
from recfuse.bench.cases.topk import Topk
from recfuse.bench.run import main_bench
from recfuse.bench.steps import Steps
from recfuse.bench.worker import Worker, WorkerError, save_arrays
from recfuse.cli import main

TINY_TOPK = Topk(n_queries=7, n_items=300, dim=12, k=5, n_excluded=4)
TINY_FUSION = FuseTopk(n_queries=6, n_items=200, dims=(3, 9), k=4)


# --- one real run, in real processes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        tiny = {"topk": [TINY_TOPK], "fuse_topk": [TINY_FUSION]}
        patch.setattr(run_module, "cases_of", lambda op, quick, device: tiny[op])
        from contextlib import redirect_stdout
        from io import StringIO

        with redirect_stdout(StringIO()) as out:
            code = main_bench(["topk", "fuse_topk"], rounds=2, out_dir=folder, peers=False)
    assert code == 0
    return folder, out.getvalue()


def test_the_document_names_machine_versions_and_data(finished: tuple[Path, str]) -> None:
    document = json.loads((finished[0] / "bench.json").read_text())
    assert document["schema"] == 1
    assert document["data"] == "generated"
    assert {"recfuse", "python", "numpy", "scipy"} <= set(document["versions"])
    machine = document["machine"]
    assert machine["isa"] in machine["isas"]
    assert machine["threads"] >= 1
    assert isinstance(machine["cpu"], str)
    assert all(rate > 0 for rate in document["ceilings"].values())
    assert [case["op"] for case in document["cases"]] == ["topk", "fuse_topk"]
    for case in document["cases"]:
        assert rebuild(case["op"], case["sizes"]).name == case["name"]
        assert case["floor_seconds"] > 0
        assert case["best_peer"] is None
        for result in case["contenders"]:
            assert result["status"] == "timed"
            assert len(result["seconds"]) == 2
            assert result["low"] <= result["median"] <= result["high"]
            assert result["once"]
            assert result["per_call"]


def test_the_tables_show_every_case_and_contender(finished: tuple[Path, str]) -> None:
    text = finished[1]
    for expected in (
        TINY_TOPK.name,
        TINY_FUSION.name,
        "% of floor",
        "recfuse.fuse_topk",
        "GFLOP/s",
    ):
        assert expected in text


def test_the_plot_is_an_image(finished: tuple[Path, str]) -> None:
    pytest.importorskip("matplotlib")
    assert (finished[0] / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_process_that_dies_is_reported(tmp_path: Path) -> None:
    save_arrays(tmp_path / "inputs", TINY_TOPK.inputs())
    worker = Worker(TINY_TOPK, TINY_TOPK.ours()[0], tmp_path / "inputs", 1)
    try:
        worker._process.kill()
        with pytest.raises(WorkerError, match="its process ended with code -9"):
            worker.prepare()
    finally:
        worker.close()


# --- cases, steps, command line


@pytest.mark.parametrize("op", OPS)
def test_cases_survive_the_way_to_another_process(op: str) -> None:
    cases = cases_of(op, quick=True) + cases_of(op, quick=False)
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert rebuild(op, json.loads(json.dumps(case.sizes()))) == case
        names = [contender.name for contender in case.contenders()]
        assert len(set(names)) == len(names)
        assert names[0] == "recfuse"


def test_steps_run_an_iteration_per_call_and_pass_errors_on() -> None:
    seen: list[int] = []

    def fit(callback: Callable[..., None]) -> None:
        for iteration in range(2):
            seen.append(iteration)
            callback(iteration, loss=None)
        raise ZeroDivisionError("at the end")

    step = Steps(fit)
    assert seen == []
    step()
    assert seen == [0]
    step()
    assert seen == [0, 1]
    with pytest.raises(ZeroDivisionError, match="at the end"):
        step()


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"op must be one of topk, .*; got 'sort'"):
        main_bench(["sort"], out_dir=tmp_path)
    with pytest.raises(ValueError, match="rounds must be at least 1; got 0"):
        main_bench(rounds=0, out_dir=tmp_path)
    with pytest.raises(ValueError, match="threads must be at least 0; got -2"):
        main_bench(threads=-2, out_dir=tmp_path)


def test_the_list_shows_workloads_and_contenders(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "fuse_topk", "--list"]) == 0
    text = capsys.readouterr().out
    for expected in ("q1024 n100000 d64+384+512 k100", "(quick)", "FAISS", "timed: index.topk"):
        assert expected in text


def test_both_ways_to_the_command_are_one() -> None:
    command = [sys.executable, "-m", "recfuse.bench", "sort", "--list"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "recfuse bench: bench: op must be one of topk" in ended.stderr


def test_answers_of_tensors_and_arrays_become_arrays() -> None:
    answer = ids_and_scores(([[1, 2]], [[0.5, 0.25]]))
    assert answer["ids"].shape == answer["scores"].shape == (1, 2)
