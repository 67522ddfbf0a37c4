"""Pages show what ran on a GPU, and call it stale where the kernels are others by now."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "gpu"
if not FOLDER.is_dir():
    pytest.skip(f"no {FOLDER}", allow_module_level=True)
sys.path.insert(0, str(FOLDER))
import evidence  # noqa: E402
import gpu_table  # noqa: E402
import pays  # noqa: E402
import sources  # noqa: E402
import workloads  # noqa: E402

sys.path.remove(str(FOLDER))

SEARCH = "topk q10240 n1000000 d128 k100"
IMPLICIT, SIMILAR = workloads.key(workloads.IMPLICIT), workloads.key(workloads.SIMILAR)


def contender(name: str, ms: float | None, *, exact: bool = True) -> dict[str, object]:
    package = "recfuse" if name.startswith("recfuse") else name
    timed = {} if ms is None else {"median": 1e-3 * ms}
    return {"name": name, "package": package, "exact": exact, "reason": None, **timed}


RESULT = {
    "schema": 1,
    "created": "2026-11-30T10:00:00+00:00",
    "kernel_sources": "abc",
    "device": {"name": "NVIDIA X", "driver": "580.1", "capability": "9.0", "memory": "9 MiB"},
    "versions": {"python": "3.12.3", "nvcc": "13.0", "recfuse": "0.1.0", "torch": "2.11.0"},
    "ceilings": {"copy_tb_s": 4.0, "matmul_float16_tflop_s": 800.0, "l2_tb_s": 5.5},
    "checks": {
        "compile": {"status": "ok", "seconds": 60.0, "said": ""},
        "racecheck": {"status": "timed out", "seconds": 60.0, "said": ""},
        "initcheck": {"status": "left out", "seconds": 0.0, "said": "no time left"},
    },
    "cases": {
        SEARCH: {
            "share_of_floor": 0.655,
            "contenders": [
                contender("recfuse", 5.0),
                contender("recfuse, host queries", 6.25),
                contender("recfuse, all from the host", 90.0),
                contender("recfuse on the CPU", 500.0),
                contender("PyTorch float32", 60.0),
                contender("PyTorch float16", 7.5, exact=False),
                contender("CuPy", None),
            ],
        },
        "topk q1 n1000000 d128 k10": {
            "share_of_floor": 0.753,
            "contenders": [contender("recfuse", 0.085), contender("recfuse, host queries", 0.1)],
        },
        IMPLICIT: {
            "share_of_floor": 0.2,
            "contenders": [
                contender("recfuse", 8.0),
                contender("recfuse, exact", 24.0),
                contender("recfuse, cg", 10.0),
                contender("implicit's GPU module", 88.0),
            ],
        },
        SIMILAR: {
            "share_of_floor": 0.5,
            "contenders": [
                contender("recfuse, all from the host", 20.0),
                contender("CuPy", 300.0),
            ],
        },
        "encode": {"encoder_ms": {"median": 10.0}, "whole_ms": {"median": 10.4}},
        "broken": {"error": "AssertionError: lists | are\nnot the CPU's bytes"},
    },
    "missing": {"ONNX Runtime on CUDA": "a build without it"},
}


def test_the_pages_show_the_evidence_that_there_is():
    for name in gpu_table.DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        begin, end = gpu_table.MARKS
        assert text.split(begin)[1].split(end)[0] == gpu_table.table_of(name)
    text = (ROOT / gpu_table.PAYS_DOCUMENT).read_text(encoding="utf-8")
    begin, end = gpu_table.PAYS_MARKS
    shown = text.split(begin)[1].split(end)[0]
    assert shown == pays.pays_table(gpu_table.evidence(), sources.kernel_hash())
    for name in gpu_table.STATE_DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        begin, end = gpu_table.STATE_MARKS
        assert text.split(begin)[1].split(end)[0] == gpu_table.state(
            gpu_table.evidence(), sources.kernel_hash()
        )


def test_without_evidence_nothing_is_claimed():
    assert gpu_table.gpu_table([], "abc").startswith("**Not run on a device yet.**")
    assert gpu_table.gpu_table([], "abc", "zh").startswith("**尚未")
    assert "not run on a device yet" in gpu_table.state([], "abc")


def test_fresh_evidence_is_a_table():
    text = gpu_table.gpu_table([RESULT], "abc")
    assert "Stale" not in text
    ratios = "recfuse on the CPU 100.0x, PyTorch float32 12.0x, PyTorch float16 1.50x (rounds)"
    assert f"| {SEARCH} | 5 ms | 6.25 ms | {ratios} | 66 % |" in text
    assert "| topk q1 n1000000 d128 k10 | 85 us | 100 us |  | 75 % |" in text
    assert f"| {SIMILAR} | not measured | 20 ms | CuPy 15.0x | 50 % |" in text
    assert "| encode | 10.4 ms | | 1.04x the encoder alone | |" in text
    assert "| broken | failed: AssertionError: lists / are not the CPU's bytes | | | |" in text
    assert "NVIDIA X, driver 580.1, CUDA 13.0; 2026-11-30;" in text
    assert "recfuse 0.1.0, torch 2.11.0." in text
    assert "copy 4.00 TB/s, L2 5.50 TB/s, float16 800 TFLOP/s." in text
    assert "Passed: compile." in text
    assert "**Not passed**: racecheck (timed out)." in text
    assert "Left out: ONNX Runtime on CUDA (a build without it)." in text
    for said in (
        f"{IMPLICIT}, recfuse, exact 24 ms of 25 ms: met",
        f"{IMPLICIT}, recfuse, cg 10 ms of 9 ms: **missed**",
        f"{IMPLICIT}, implicit's GPU module 11.0x of 10.0x: met",
        f"{SIMILAR}, recfuse, all from the host 20 ms of 25 ms: met",
        f"{SIMILAR}, CuPy 15.0x of 20.0x: **missed**",
    ):
        assert said in text
    assert "explicit" not in text  # not measured
    assert gpu_table.state([RESULT], "abc") == "Run on NVIDIA X on 2026-11-30.\n"


def test_evidence_of_other_kernels_is_stale():
    for language, word in (("en", "**Stale**"), ("zh", "**已过期**")):
        text = gpu_table.gpu_table([RESULT], "another", language)
        assert text.startswith(word)
        assert SEARCH in text
    assert "stale" in gpu_table.state([RESULT], "another")


def test_the_newest_evidence_comes_first(tmp_path):
    older = {**RESULT, "created": "2026-11-01T10:00:00+00:00", "device": {"name": "NVIDIA Y"}}
    for name, result in (("gpu-a", older), ("gpu-b", RESULT), ("other", older)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    found = gpu_table.evidence(tmp_path)
    assert [result["device"]["name"] for result in found] == ["NVIDIA X", "NVIDIA Y"]


def test_both_languages_say_the_same_numbers():
    for kernels in ("abc", "another"):
        tables = [gpu_table.gpu_table([RESULT], kernels, x).splitlines() for x in ("en", "zh")]
        assert len(tables[0]) == len(tables[1])
        digits = [[c for line in lines for c in line if c.isdigit()] for lines in tables]
        assert sorted(digits[0]) == sorted(digits[1])


def test_without_ceilings_none_are_shown():
    result = copy.deepcopy(RESULT)
    result["ceilings"] = {}
    assert "Ceilings" not in gpu_table.gpu_table([result], "abc")


SERIES = workloads.SERIES["one query, 128 dimensions"]


def measured(*times: tuple[float, float, float]) -> dict[str, object]:
    """Return evidence of the CPU, the GPU from the host, and with its data there."""
    names = "recfuse on the CPU", "recfuse, host queries", "recfuse"
    found = {
        workloads.key(case): dict(zip(names, of_case, strict=True))
        for case, of_case in zip(SERIES, times, strict=False)
    }
    return {**RESULT, "pays": {"one query, 128 dimensions": found}}


def row(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_a_gpu_pays_from_where_it_stays_sooner():
    result = measured((1, 2, 0.5), (2, 1, 1), (3, 4, 1), (9, 4, 1))
    text = pays.pays_table([result], "abc")
    assert row(text, "one query, 128 dimensions")[:2] == [
        "from 1,000,000 items",  # not where it is sooner by chance
        "from 1,000 items",
    ]
    assert row(text, "similar items, k = 100")[0] == "not measured on a device yet"
    assert "Measured on NVIDIA X on 2026-11-30, beside" in text
    assert "**stale**" in pays.pays_table([result], "another")
    never = pays.pays_table([measured((1, 2, 2), (2, 3, 3))], "abc")
    assert row(never, "one query, 128 dimensions")[:2] == ["not up to 10,000 items"] * 2
    with pytest.raises(ValueError, match="rehearsal"):
        pays.pays_table([{**result, "rehearsal": True}], "abc")


def test_where_nothing_ran_there_are_predictions_alone():
    text = pays.pays_table([], "abc")
    rows = [row(text, name) for name in workloads.SERIES]
    assert all(cells[:2] == ["not measured on a device yet"] * 2 for cells in rows)
    assert "Measured: nothing yet" in text
    assert "Predicted, not measured:" in text
    # One query: the CPU reads 128 bytes an item in int8, the GPU 256, after 0.1 ms.
    cpu = pays.cpu_ceilings()
    said = int(rows[0][2].removeprefix("from about ").removesuffix(" items").replace(",", ""))
    for n_items, sooner in ((said // 2, False), (said, True)):
        cached = min(1.0, cpu.cache_bytes / (128 * n_items))
        on_cpu = 128 * n_items * (cached / cpu.cache + (1 - cached) / cpu.memory)
        assert (pays.CALL + 256 * n_items / 4.8e12 < on_cpu) == sooner


def test_more_moves_over_the_bus_from_the_host():
    search, fit, similar = workloads.ONE, workloads.IMPLICIT, workloads.SIMILAR
    assert pays.bus_bytes(search) == 4 * 128 + 8 * 10
    assert pays.bus_bytes(fit) == 8 * 20_000_000 + 8 * 165_000 * 128
    assert pays.bus_bytes(similar) == 8 * 20_000_000 + 8 * 27_000 * 100


def test_a_rehearsal_is_no_evidence():
    with pytest.raises(ValueError, match="rehearsal"):
        gpu_table.gpu_table([{**RESULT, "rehearsal": True}], "abc")


def test_a_run_that_ends_early_leaves_its_steps(tmp_path):
    file = tmp_path / "run.json"

    def call(*arguments):
        command = [sys.executable, FOLDER / "evidence.py", file, *arguments]
        subprocess.run(command, check=True, timeout=60)

    call("start")
    call("step", "compile", "ok", "12", "a", "b")
    call("step", "smoke", "timed out", "60")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["kernel_sources"] == sources.kernel_hash()
    assert list(found["checks"]) == ["compile", "smoke"]
    assert found["checks"]["compile"] == {"status": "ok", "seconds": 12.0, "said": "a b"}
    text = gpu_table.gpu_table([found], sources.kernel_hash())
    assert "Passed: compile." in text
    assert "smoke (timed out)" in text


def test_peers_are_added_to_their_case(tmp_path):
    file = tmp_path / "run.json"
    evidence.add(file, {"cases": {"a": {"x": 1, "dims": [1, 2]}}})
    evidence.add(file, {"cases": {"a": {"peers": {"p": 2}}}})
    evidence.add(file, {"cases": {"a": {"peers": {"q": 3}, "dims": [1, 2]}, "b": {}}})
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found == {"cases": {"a": {"x": 1, "dims": [1, 2], "peers": {"p": 2, "q": 3}}, "b": {}}}


def test_the_hash_is_of_the_kernels_and_their_options(tmp_path):
    for name in ("cuda/src/a.cuh", "cuda/src/deep/b.cu", "cuda/CMakeLists.txt", "cuda/src/c.hpp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1", encoding="utf-8")
    before = sources.kernel_hash(tmp_path)
    (tmp_path / "cuda/src/c.hpp").write_text("2", encoding="utf-8")  # of the host
    assert sources.kernel_hash(tmp_path) == before
    seen = {before}
    for name in ("cuda/src/a.cuh", "cuda/src/deep/b.cu", "cuda/CMakeLists.txt"):
        (tmp_path / name).write_text("2", encoding="utf-8")
        seen.add(sources.kernel_hash(tmp_path))
    assert len(seen) == 4
