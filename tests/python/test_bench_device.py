"""The benchmark on a GPU, rehearsed on the emulator of one: contenders, checks, ceilings."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import CUDA_MODULES, run_on_cuda
from recfuse import backend
from recfuse.bench import Contender, Cost, Race, Ready, WrongAnswerError
from recfuse.bench import run as run_module
from recfuse.bench.case import ON_CPU
from recfuse.bench.cases import cases_of, rebuild
from recfuse.bench.cases.als import Als
from recfuse.bench.cases.als_explicit import ExplicitAls
from recfuse.bench.cases.cosine_knn import CosineKnn
from recfuse.bench.cases.fuse_topk import FuseTopk
from recfuse.bench.cases.topk import Topk
from recfuse.bench.device import DeviceInputs, Site
from recfuse.bench.device_ceilings import as_ceilings, measure_rates
from recfuse.bench.here import Here
from recfuse.bench.peers import on_device
from recfuse.bench.roofline import floor
from recfuse.bench.run import list_cases, main_bench
from recfuse.bench.worker import WorkerError
from recfuse.cli import main
from recfuse.errors import DeviceError

pytest.importorskip("torch")

RATINGS = {"n_users": 60, "n_items": 40, "nnz": 700}
TINY: dict[str, list[Any]] = {
    "topk": [Topk(n_queries=5, n_items=300, dim=12, k=5, n_excluded=4)],
    "fuse_topk": [FuseTopk(n_queries=6, n_items=200, dims=(3, 9), k=4)],
    "cosine_knn": [CosineKnn(**RATINGS, k=5)],
    "als": [
        Als(**RATINGS, factors=8),
        Als(**RATINGS, factors=8, objective="explicit"),
        ExplicitAls(**RATINGS, factors=6, peer_iterations=4, our_iterations=3),
    ],
}


@pytest.fixture
def site(monkeypatch):
    for _ in run_on_cuda(CUDA_MODULES["emulator"], monkeypatch):
        yield Site("emulator")


def test_every_op_races_on_the_device(site, monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(run_module, "cases_of", lambda op, quick, device: TINY[op])
    assert main_bench(list(TINY), rounds=2, out_dir=tmp_path, device="emulator") == 0
    document = json.loads((tmp_path / "bench-emulator.json").read_text())
    assert document["device"] == {"name": "emulator"}
    assert "ceilings: " in capsys.readouterr().out
    for case in document["cases"]:
        assert rebuild(case["op"], case["sizes"]).name == case["name"]
        found = {one["name"]: one for one in case["contenders"]}
        assert next(iter(found)) in ("recfuse", "recfuse, all from the host")
        assert case["floor_seconds"] > 0
        ours = [one for one in found.values() if one["package"] == "recfuse"]
        assert [one["status"] for one in ours] == ["timed"] * len(ours)
        assert found[ON_CPU] in ours
        assert case["best_peer"] == ("PyTorch float32" if "topk" in case["op"] else None)
        if "topk" in case["op"]:
            assert {"recfuse, host queries", "recfuse, all from the host"} <= set(found)
            assert found["PyTorch float16"]["status"] == "timed"
            assert not found["PyTorch float16"]["exact"]
        for one in set(found) & {"CuPy", "implicit's GPU module"}:
            assert found[one]["status"] == "absent"
            assert found[one]["reason"]
    pytest.importorskip("matplotlib")
    for op in TINY:
        assert (tmp_path / f"bench-emulator-{op}.png").read_bytes().startswith(b"\x89PNG")


def test_without_peers_the_cpu_still_judges(site) -> None:
    with Race(TINY["topk"][0], num_threads=1, peers=False, site=site) as race:
        race.round()
        result = race.result(as_ceilings({"copy_tb_s": 1, "matmul_float16_tflop_s": 1}, 1))
    names = [one["name"] for one in result["contenders"]]
    assert names[-1] == ON_CPU
    assert {one["package"] for one in result["contenders"]} == {"recfuse"}
    assert result["best_peer"] is None


@pytest.mark.parametrize("place", [-1, 1], ids=["the CPU", "another way"])
def test_one_bit_more_or_less_ends_the_race(site, monkeypatch, place: int) -> None:
    case = TINY["topk"][0]
    right = case.contenders(on_device=True)
    n_ours = len(case.ours_on_device())
    at = n_ours if place == -1 else place

    def off(case: Any, inputs: Any, num_threads: int) -> Ready:
        ready = right[at].prepare(case, inputs, num_threads)

        def answer(result: Any) -> Any:
            found = ready.answer(result)
            scores = np.array(found["scores"])
            scores[0, 0] = np.nextafter(scores[0, 0], np.float32(0))
            return {**found, "scores": scores}

        return Ready(ready.call, answer)

    field = [*right[:at], replace(right[at], prepare=off), *right[at + 1 :]]
    monkeypatch.setattr(Topk, "contenders", lambda self, *, on_device: field)
    with (
        pytest.raises(WrongAnswerError, match="scores are not the same bytes"),
        Race(case, num_threads=1, site=site),
    ):
        pass


def test_peers_of_the_device_agree_on_fusion_and_exclusions(site) -> None:
    for case in (*TINY["topk"], *TINY["fuse_topk"]):
        inputs = DeviceInputs(case.inputs(), "cpu")
        referee = case.referee(inputs)
        ours, theirs = (
            ready.answer(ready.call())
            for ready in (
                one.prepare(case, inputs, 1)
                for one in (case.ours_on_device()[0], on_device.dense_peers_on_device()[0])
            )
        )
        assert referee.verify(ours) is None
        assert referee.compare(ours, theirs) is None


def test_there_must_be_a_device(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setitem(backend._MODULES, "cuda", "recfuse._no_such_module")
    backend._load.cache_clear()
    with pytest.raises(DeviceError, match="bench: device='cuda' has nothing to run on: "):
        main_bench(["topk"], device="cuda", out_dir=tmp_path)
    assert main(["bench", "topk", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "has nothing to run on" in capsys.readouterr().err
    backend._load.cache_clear()
    with pytest.raises(ValueError, match="device must be one of cpu, cuda, emulator; got 'tpu'"):
        main_bench(["topk"], device="tpu", out_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_there_must_be_a_clock(site) -> None:
    with pytest.raises(DeviceError, match=r"needs PyTorch with CUDA, .* finds no GPU"):
        Site("cuda")  # the emulator answers for recfuse, and PyTorch has none


def test_the_list_shows_larger_cases_and_who_is_left_out() -> None:
    text = list_cases(["fuse_topk", "als"], "cuda")
    assert "q10240 n1000000 d64+384+512 k100" in text
    assert "explicit, an iteration" in text
    assert "implicit's GPU module (" in text
    assert [c.name for c in cases_of("topk", quick=True, device="cuda")] == [
        c.name for c in cases_of("topk", quick=True)
    ]


def test_ceilings_of_a_device_set_floors_in_float16() -> None:
    rates = {"copy_tb_s": 4.0, "matmul_float16_tflop_s": 800.0}
    ceilings = as_ceilings(rates, cache_bytes=1)
    cost = FuseTopk(n_queries=10_240, n_items=10**6, dims=(64, 384, 512), k=100).cost({})
    assert cost.float16_bytes - 2 * 10**6 * 960 == cost.bytes - 4 * 10**6 * 960
    least = floor(cost, ceilings)
    assert least.bound == "float16 multiply-adds"
    assert least.seconds == pytest.approx(2 * 10_240 * 1e6 * 960 / 800e12)
    one = Topk(n_queries=1, n_items=10**6, dim=128, k=10).cost({})
    assert floor(one, ceilings).seconds == pytest.approx(one.float16_bytes / 4e12)
    updates = Cost(flops=0, bytes=8, updates=1e9)
    assert floor(updates, ceilings).bound != "updates"  # of no known rate
    known = as_ceilings({**rates, "shared_atomics_g_s": 500.0}, cache_bytes=1)
    assert floor(updates, known).seconds == pytest.approx(2e-3)
    assert floor(updates, known).bound == "updates"


def test_what_cannot_be_measured_is_told(site) -> None:
    pytest.importorskip("torch")
    missing: dict[str, Exception] = {}
    rates = measure_rates(site.clock, missing.__setitem__)
    assert {"copy_tb_s", "matmul_float16_tflop_s"} <= set(rates)
    assert all(rate > 0 for rate in rates.values())
    assert {"l2_tb_s", "shared_atomics_g_s"} <= set(missing)  # of a kernel, for which CuPy is


def test_a_contender_here_has_its_environment_and_its_errors(site, monkeypatch) -> None:
    monkeypatch.delenv("RECFUSE_TEST", raising=False)
    seen = []

    def prepare(case: Any, inputs: Any, num_threads: int) -> Ready:
        seen.append(os.environ.get("RECFUSE_TEST"))

        def call() -> Any:
            seen.append(os.environ.get("RECFUSE_TEST"))
            if len(seen) > 3:
                raise ZeroDivisionError("no more")
            return 1

        return Ready(call, lambda result: {"x": np.array(result)})

    one = Contender("a", "numpy", "numpy", prepare, "", "", {"RECFUSE_TEST": "5"})
    case = TINY["topk"][0]
    here = Here(case, one, DeviceInputs({}, "cpu"), 1, site.clock)
    described = here.prepare()
    assert described["first_seconds"] >= 0
    assert here.answer() == {"x": 1}
    assert here.time(1)[0] >= 0
    with pytest.raises(WorkerError, match="ZeroDivisionError: no more"):
        here.time(1)
    assert seen == ["5"] * 4
    assert "RECFUSE_TEST" not in os.environ
    here.close()
    here.close()


def test_inputs_go_to_the_device_once() -> None:
    inputs = DeviceInputs({"a": np.arange(3)}, "cpu")
    assert inputs.there["a"] is inputs.there["a"]
    assert list(inputs) == list(inputs.there) == ["a"]
    assert len(inputs) == len(inputs.there) == 1
    calls: list[int] = []
    for _ in range(2):
        inputs.once("x", lambda: calls.append(1))
    assert calls == [1]
