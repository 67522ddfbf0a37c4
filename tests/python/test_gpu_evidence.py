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
import sources  # noqa: E402

sys.path.remove(str(FOLDER))

SEARCH = "q10240 n1000000 d128 k100"
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
            "sizes": {"n_queries": 10240, "n_items": 10**6, "dims": [128], "k": 100},
            "resident_ms": {"median": 5.0},
            "with_copies_ms": {"median": 6.25},
            "peers": {
                "PyTorch float32": {"ms": {"median": 60.0}},
                "PyTorch float16": {"error": "OutOfMemoryError: x"},
                "CuPy float32": {"once_ms": 7000.0},
            },
        },
        "q1 n1000000 d128 k10": {
            "sizes": {"n_queries": 1, "n_items": 10**6, "dims": [128], "k": 10},
            "resident_ms": {"median": 0.085},
            "with_copies_ms": {"median": 0.1},
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
    # 2 * 10,240 * 1e6 * 128 products at 800 TFLOP/s are 3.28 ms, 256 MB at 4 TB/s are 64 us.
    ratios = "PyTorch float32 12.0x, CuPy float32 1400.0x"
    assert f"| {SEARCH} | 5 ms | 6.25 ms | {ratios} | 66 % |" in text
    assert "| q1 n1000000 d128 k10 | 85 us | 100 us |  | 75 % |" in text
    assert "| encode | 10.4 ms | | 1.04x the encoder alone | |" in text
    assert "| broken | failed: AssertionError: lists / are not the CPU's bytes | | | |" in text
    assert "NVIDIA X, driver 580.1, CUDA 13.0; 2026-11-30;" in text
    assert "recfuse 0.1.0, torch 2.11.0." in text
    assert "copy 4.00 TB/s, L2 5.50 TB/s, float16 800 TFLOP/s." in text
    assert "Passed: compile." in text
    assert "**Not passed**: racecheck (timed out)." in text
    assert "Left out: ONNX Runtime on CUDA (a build without it)." in text
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


def test_what_has_no_ceiling_has_no_share():
    result = copy.deepcopy(RESULT)
    result["ceilings"] = {}
    text = gpu_table.gpu_table([result], "abc")
    assert text.count("| not measured |") == 2
    assert "Ceilings" not in text


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
