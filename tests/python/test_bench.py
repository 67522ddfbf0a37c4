"""The benchmark harness: judges, floors, races, files. Speed itself is not tested here."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from recfuse import _core
from recfuse.bench import race as race_module
from recfuse.bench import run as run_module
from recfuse.bench.__main__ import main
from recfuse.bench.case import Case, Contender, Cost, Ready, Referee, ids_and_scores
from recfuse.bench.cases import OPS, cases_of, rebuild
from recfuse.bench.cases.als import Als
from recfuse.bench.cases.als_explicit import ExplicitAls
from recfuse.bench.cases.cosine_knn import CosineKnn
from recfuse.bench.cases.fuse_topk import FuseTopk
from recfuse.bench.cases.topk import Topk
from recfuse.bench.exclusions import draw_excluded, excluded_hits, excluded_items
from recfuse.bench.interactions import user_items
from recfuse.bench.race import Race, WrongAnswerError
from recfuse.bench.roofline import Ceilings, Floor, floor, measure_ceilings
from recfuse.bench.run import main_bench
from recfuse.bench.steps import Steps
from recfuse.bench.worker import Worker, WorkerError, save_arrays

CEILINGS = Ceilings(flops=100.0, memory=10.0, cache=50.0, updates=5.0, cache_bytes=1000)
TINY_TOPK = Topk(n_queries=7, n_items=300, dim=12, k=5, n_excluded=4)
TINY_FUSION = FuseTopk(n_queries=6, n_items=200, dims=(3, 9), k=4)


# --- floors and ceilings


@pytest.mark.parametrize(
    ("cost", "seconds", "bound"),
    [
        (Cost(flops=1000, bytes=100), 10.0, "multiply-adds"),
        (Cost(flops=0, bytes=100), 2.0, "last cache"),
        # Of 4000 bytes a quarter is served by the cache: 1000 / 50 + 3000 / 10.
        (Cost(flops=0, bytes=4000), 320.0, "memory"),
        (Cost(flops=0, bytes=4000, working_set=1000), 80.0, "last cache"),
        (Cost(flops=10, bytes=10, updates=100), 20.0, "updates"),
    ],
)
def test_the_floor_is_the_time_of_the_scarcest_resource(
    cost: Cost, seconds: float, bound: str
) -> None:
    least = floor(cost, CEILINGS)
    assert least.seconds == pytest.approx(seconds)
    assert least.bound == bound


def test_costs_count_what_the_formula_needs() -> None:
    cost = FuseTopk(n_queries=10, n_items=1000, dims=(3, 5), k=2).cost({})
    assert cost.flops == 2 * 10 * 1000 * 8
    assert cost.bytes == 4 * 1010 * 8 + 8 * 10 * 2


def test_ceilings_are_rates_and_the_best_of_two_is_kept() -> None:
    measured = measure_ceilings(1)
    assert measured.flops > 1e8
    assert measured.memory > 1e8
    assert measured.cache > 1e8
    assert measured.updates > 1e7
    best = CEILINGS.best(Ceilings(flops=1.0, memory=20.0, cache=1.0, updates=6.0, cache_bytes=1000))
    assert best == Ceilings(flops=100.0, memory=20.0, cache=50.0, updates=6.0, cache_bytes=1000)


def test_integers_lower_the_floor_where_there_are_any():
    cost = Cost(flops=1000.0, bytes=40.0, int8_bytes=10.0)
    assert floor(cost, CEILINGS).seconds == 10.0
    faster = replace(CEILINGS, int8=400.0)
    assert floor(cost, faster) == Floor(2.5, "int8 multiply-adds")
    assert floor(replace(cost, int8_bytes=0.0), faster) == Floor(10.0, "multiply-adds")
    few = Cost(flops=40.0, bytes=4e6, int8_bytes=1e6)
    assert floor(few, faster).bound == "memory"
    assert floor(few, faster).seconds == pytest.approx(1e6 * (0.001 / 50 + 0.999 / 10))


def test_the_ceiling_of_int8_is_above_that_of_float32():
    rate = _core.measure_int8_operations(1)
    assert rate == 0 or rate > 1.5 * _core.measure_flops(1)
    assert (rate > 0) == (_core.active_isa() in ("avx2", "avx512_vnni"))


@pytest.mark.parametrize("measure", [_core.measure_flops, _core.measure_updates])
def test_ceilings_refuse_negative_threads(measure: Callable[[int], float]) -> None:
    with pytest.raises(ValueError, match=r"measure_\w+: num_threads must be at least 0; got -1"):
        measure(-1)


def test_bandwidth_refuses_an_empty_array() -> None:
    with pytest.raises(ValueError, match=r"measure_bandwidth: bytes must be at least 1; got 0"):
        _core.measure_bandwidth(0)


# --- the judge of retrieval and fusion


@pytest.fixture(params=[TINY_TOPK, TINY_FUSION], ids=["topk", "fuse_topk"])
def dense_case(request: pytest.FixtureRequest) -> Any:
    return request.param


def exact_answer(case: Any) -> dict[str, np.ndarray]:
    inputs = case.inputs()
    ready = case.ours()[0].prepare(case, inputs, 1)
    return ready.answer(ready.call())


def test_the_judge_accepts_recfuse_by_both_ways(dense_case: Any) -> None:
    inputs = dense_case.inputs()
    referee, ours = dense_case.referee(inputs), exact_answer(dense_case)
    assert referee.verify(ours) is None
    one_call = dense_case.ours()[1].prepare(dense_case, inputs, 2)
    assert referee.compare(ours, one_call.answer(one_call.call())) is None


def changed(answer: dict[str, np.ndarray], row: int, place: int, item: int) -> dict[str, Any]:
    ids = answer["ids"].copy()
    ids[row, place] = item
    return answer | {"ids": ids}


def test_the_judge_rejects_wrong_answers(dense_case: Any) -> None:
    inputs = dense_case.inputs()
    referee, ours = dense_case.referee(inputs), exact_answer(dense_case)
    swapped = ours | {"ids": ours["ids"][:, ::-1]}
    worst = int(np.argmin(dense_case.query_matrix(inputs)[0] @ dense_case.item_matrix(inputs).T))
    for wrong, reason in [
        (swapped, "instead of"),
        (changed(ours, 0, 1, worst), "query 0 has item"),
        (changed(ours, 0, 1, int(ours["ids"][0, 0])), "comes twice"),
        (changed(ours, 0, 0, -1), "out of range"),
        (ours | {"ids": ours["ids"][:, :-1]}, "shape"),
    ]:
        assert reason in referee.compare(ours, wrong)
    assert "scores" in referee.verify(ours | {"scores": ours["scores"] + 0.01})
    assert "scores" in referee.verify(ours | {"scores": ours["scores"] * np.nan})
    assert referee.verify(changed(ours, 0, 1, worst)) is not None


def test_the_judge_rejects_an_excluded_item() -> None:
    inputs = TINY_TOPK.inputs()
    referee, ours = TINY_TOPK.referee(inputs), exact_answer(TINY_TOPK)
    excluded = int(excluded_items(inputs)[[2]].indices[0])
    assert referee.compare(ours, changed(ours, 2, 0, excluded)) == "an excluded item comes back"


def test_the_judge_lets_ties_differ() -> None:
    case = Topk(n_queries=2, n_items=50, dim=6, k=4)
    inputs = dict(case.inputs())
    inputs["items"][30] = inputs["items"][20]
    inputs["items"][[20, 30]] *= 100
    inputs["queries"][:] = np.abs(inputs["queries"]) * np.sign(inputs["items"][20])
    ready = case.ours()[0].prepare(case, inputs, 1)
    ours = ready.answer(ready.call())
    assert ours["ids"][:, :2].tolist() == [[20, 30]] * 2
    other = ours | {"ids": ours["ids"][:, [1, 0, 2, 3]]}
    assert case.referee(inputs).compare(ours, other) is None


def test_exclusions_are_distinct_and_found(rng: np.random.Generator) -> None:
    inputs = draw_excluded(rng, 9, 20, 7)
    excluded = excluded_items(inputs)
    dense = excluded.toarray() > 0
    assert (dense.sum(axis=1) == 7).all()
    ids = rng.integers(20, size=(9, 11))
    np.testing.assert_array_equal(
        excluded_hits(excluded, ids), np.take_along_axis(dense, ids, axis=1)
    )


# --- the peers, here in this process and on few items


@pytest.mark.parametrize("name", ["NumPy", "PyTorch", "FAISS", "implicit", "scikit-learn"])
def test_dense_peers_agree_with_recfuse(dense_case: Any, name: str) -> None:
    inputs = dense_case.inputs()
    peer = next(c for c in dense_case.peers() if c.name == name)
    if peer.missing():
        pytest.skip(f"{peer.package} is not installed")
    ready = peer.prepare(dense_case, inputs, 1)
    referee = dense_case.referee(inputs)
    assert referee.compare(exact_answer(dense_case), ready.answer(ready.call())) is None


@pytest.mark.filterwarnings("ignore:Method expects CSR input")  # implicit says it of itself
def test_sparse_peers_agree_with_recfuse() -> None:
    case = CosineKnn(n_users=80, n_items=60, nnz=900, k=12)
    inputs = case.inputs()
    referee = case.referee(inputs)
    ready = case.ours()[0].prepare(case, inputs, 1)
    ours = ready.answer(ready.call())
    assert referee.verify(ours) is None
    compared = []
    for peer in case.peers():
        if not peer.missing():
            ready = peer.prepare(case, inputs, 1)
            assert referee.compare(ours, ready.answer(ready.call())) is None, peer.name
            compared.append(peer.name)
    assert "SciPy" in compared


def test_the_judge_of_neighbours_rejects_wrong_answers() -> None:
    case = CosineKnn(n_users=80, n_items=60, nnz=900, k=5)
    inputs = case.inputs()
    referee = case.referee(inputs)
    ready = case.ours()[0].prepare(case, inputs, 1)
    ours = ready.answer(ready.call())
    itself = ours["ids"].copy()
    itself[3, 0] = 3
    twice = ours["ids"].copy()
    twice[4, 1] = twice[4, 0]
    for wrong, reason in [
        (ours | {"ids": itself}, "its own neighbour"),
        (ours | {"ids": twice}, "comes twice"),
        (ours | {"ids": ours["ids"][:, ::-1]}, "from those given"),
        (ours | {"ids": ours["ids"][:, 1:]}, "shape"),
        (ours | {"cosines": ours["cosines"] * 0.999}, "cosine"),
    ]:
        assert reason in referee.compare(ours, wrong)
    assert "off by" in referee.verify(ours | {"cosines": ours["cosines"] * 0.999})


def test_als_is_judged_by_its_objective() -> None:
    case = Als(n_users=60, n_items=40, nnz=700, factors=4)
    inputs = case.inputs()
    referee = case.referee(inputs)
    ready = case.ours()[0].prepare(case, inputs, 1)
    for _ in range(case.warm_up_calls):
        result = ready.call()
    ours = ready.answer(result)
    assert referee.verify(ours) is None
    assert referee.compare(ours, ours) is None
    nothing = {name: np.zeros_like(factors) for name, factors in ours.items()}
    assert "without any factors" in referee.verify(nothing)
    assert "instead of" in referee.compare(ours, nothing)
    dense = user_items(inputs).toarray().astype(np.float64)
    users, items = ours["users"].astype(np.float64), ours["items"].astype(np.float64)
    expected = ((1 + dense) * ((dense > 0) - users @ items.T) ** 2).sum()
    expected += 0.01 * ((users**2).sum() + (items**2).sum())
    assert referee.measures(ours)["objective"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore:OpenBLAS is configured")  # its process has one BLAS thread
def test_als_peers_reach_the_objective_of_recfuse() -> None:
    pytest.importorskip("implicit")
    case = Als(n_users=300, n_items=200, nnz=5000, factors=8)
    inputs = case.inputs()
    answers = []
    installed = [one for one in case.contenders() if not one.missing()]
    for one in installed:
        ready = one.prepare(case, inputs, 1)
        for _ in range(case.warm_up_calls):
            result = ready.call()
        answers.append(ready.answer(result))
    assert len(answers) >= 2
    for theirs in answers[1:]:
        assert case.referee(inputs).compare(answers[0], theirs) is None


def test_a_peer_whose_objective_recfuse_does_not_reach_differs() -> None:
    case = Als(n_users=60, n_items=40, nnz=700, factors=4)
    referee = case.referee(case.inputs())
    answers = [{"objective": 1.0}, {"objective": 0.998}, {"objective": 1.01}, {"objective": 1.03}]
    referee.measures = lambda answer: answer  # type: ignore[method-assign,assignment]
    verdicts = [referee.compare(answers[0], answer) for answer in answers]  # type: ignore[arg-type]
    assert [verdict is None for verdict in verdicts] == [True, False, True, False]


EXPLICIT_SIZES = {"n_users": 300, "n_items": 200, "nnz": 5000, "factors": 8}


def test_explicit_als_is_judged_by_the_error_of_its_ratings() -> None:
    case = ExplicitAls(**EXPLICIT_SIZES, peer_iterations=4, our_iterations=3)
    inputs = case.inputs()
    referee = case.referee(inputs)
    ready = case.ours()[0].prepare(case, inputs, 1)
    ours = ready.answer(ready.call())
    assert referee.verify(ours) is None
    assert referee.compare(ours, ours) is None
    mean_alone = {name: 0 * values for name, values in ours.items()} | {"mean": ours["mean"]}
    assert "that of the mean" in referee.verify(mean_alone)
    assert referee.compare(ours, mean_alone) is None  # a peer may be slower
    assert "recfuse does not reach" in referee.compare(mean_alone, ours)
    dense = user_items(inputs).toarray().astype(np.float64)
    predicted = ours["users"].astype(np.float64) @ ours["items"].T + ours["mean"]
    predicted += ours["user_biases"][:, None] + ours["item_biases"][None, :]
    expected = np.sqrt(((dense - predicted)[dense > 0] ** 2).mean())
    assert referee.measures(ours)["rmse"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Attempting to use")  # SciPy's BLAS beside its own threads
def test_explicit_als_peers_reach_no_lower_error() -> None:
    pytest.importorskip("cmfrec")
    case = ExplicitAls(**EXPLICIT_SIZES, peer_iterations=4, our_iterations=7)
    inputs = case.inputs()
    ours, theirs = (
        ready.answer(ready.call())
        for ready in (one.prepare(case, inputs, 1) for one in case.contenders())
    )
    assert case.referee(inputs).compare(ours, theirs) is None
    assert case.referee(inputs).verify(theirs) is None


def test_a_cosine_update_is_a_pair_of_items_of_one_user() -> None:
    cost = CosineKnn(n_users=2, n_items=9, nnz=7, k=1).cost({"indptr": np.array([0, 3, 7])})
    assert cost.updates == 3 + 6
    assert cost.flops == 0


# --- races, with contenders of the test in this process


@dataclass(frozen=True, kw_only=True)
class Toy(Case):
    """Contenders answer with a number; 1 is right."""

    op: ClassVar[str] = "toy"
    field_: tuple[Contender, ...] = field(default=())

    @property
    def name(self) -> str:
        return "toy"

    def inputs(self) -> dict[str, np.ndarray]:
        return {"one": np.ones(1)}

    def ours(self) -> list[Contender]:
        return list(self.field_[:1])

    def peers(self) -> list[Contender]:
        return list(self.field_[1:])

    def cost(self, inputs: Any) -> Cost:
        return Cost(flops=100.0, bytes=1.0)

    def referee(self, inputs: Any) -> Referee:
        return ToyReferee()

    def sizes(self) -> dict[str, Any]:
        return {}


class ToyReferee(Referee):
    def verify(self, answer: Any) -> str | None:
        return None if answer["value"] == 1 else "not 1"

    def compare(self, ours: Any, theirs: Any) -> str | None:
        return None if theirs["value"] == ours["value"] else "not ours"


class WorkerHere:
    """Does what `Worker` does, in this process; every call takes the contender's `seconds`."""

    calls: ClassVar[list[str]] = []

    def __init__(self, case: Case, contender: Contender, inputs: Path, num_threads: int) -> None:
        self.name = contender.name
        self.ready = contender.prepare(case, {}, num_threads)

    def prepare(self) -> dict[str, Any]:
        self.result = self.ready.call()
        return {"prepare_seconds": 0.0, "first_seconds": self.result[1], "extra_bytes": 5}

    def answer(self) -> dict[str, Any]:
        return self.ready.answer(self.result)

    def time(self, n_calls: int) -> tuple[float, float]:
        self.calls.append(self.name)
        seconds = float(self.ready.call()[1])
        return seconds, 2 * seconds

    def close(self) -> None:
        pass


def contender(name: str, value: float, *seconds: float, module: str = "numpy") -> Contender:
    """Return one that answers `value` and takes these seconds, the first ones to warm up."""

    def prepare(case: Any, inputs: Any, num_threads: int) -> Ready:
        times = iter(seconds)

        def call() -> tuple[float, float]:
            taken = next(times)
            if taken < 0:
                raise WorkerError("it broke")
            return value, taken

        return Ready(call, lambda result: {"value": np.array(result[0])})

    package = "recfuse" if name.startswith("recfuse") else name
    return Contender(name, package, module, prepare, "", "")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(race_module, "Worker", WorkerHere)
    monkeypatch.setattr(race_module, "_PAUSE", 0.0)
    monkeypatch.setattr(WorkerHere, "calls", [])
    return WorkerHere.calls


def raced(*field_: Contender, rounds: int = 2) -> dict[str, Any]:
    with Race(Toy(field_=field_), num_threads=1) as race:
        for _ in range(rounds):
            race.round()
    return race.result(CEILINGS)


def test_contenders_alternate_and_ratios_are_taken_round_by_round(here: list[str]) -> None:
    result = raced(contender("recfuse", 1, 9, 1.0, 2.0), contender("a", 1, 9, 3.0, 8.0))
    assert here == ["recfuse", "a", "a", "recfuse"]
    ours, peer = result["contenders"]
    assert ours["seconds"] == [1.0, 2.0]
    assert ours["cpu_seconds"] == 3.0
    assert peer["ratio_median"] == pytest.approx(3.5)  # of 3 / 1 and 8 / 2
    assert (peer["ratio_low"], peer["ratio_high"]) == pytest.approx((3.25, 3.75))
    assert result["best_peer"] == "a"
    assert result["floor_seconds"] == 1.0
    assert result["share_of_floor"] == pytest.approx(1 / 1.5)


def test_the_best_peer_is_the_fastest_that_is_right(here: list[str]) -> None:
    result = raced(
        contender("recfuse", 1, 9, 2.0, 2.0),
        contender("slow", 1, 9, 5.0, 5.0),
        contender("wrong", 3, 9, 0.1, 0.1),
        contender("broken", 1, -1.0),
        contender("breaks later", 1, 9, 0.1, -1.0),
        contender("absent", 1, module="no_such_module"),
        contender("fast", 1, 9, 4.0, 4.0),
    )
    assert result["best_peer"] == "fast"
    found = {c["name"]: (c["status"], c["reason"]) for c in result["contenders"]}
    assert found == {
        "recfuse": ("timed", None),
        "slow": ("timed", None),
        "wrong": ("differs", "not ours"),
        "broken": ("failed", "it broke"),
        "breaks later": ("failed", "it broke"),
        "absent": ("absent", "absent is not installed"),
        "fast": ("timed", None),
    }
    assert "wrong" not in here


def test_a_peer_far_behind_keeps_its_first_time(here: list[str]) -> None:
    result = raced(
        contender("recfuse", 1, 1, 1.0, 1.0),
        contender("fast", 1, 2.0, 2.0, 2.0),
        contender("far behind", 1, 17.0, 17.0),
    )
    assert here.count("far behind") == 0
    last = result["contenders"][2]
    assert last["seconds"] == [17.0]
    assert last["ratio_median"] == 17.0


def test_without_peers_there_is_no_best_one(here: list[str]) -> None:
    assert raced(contender("recfuse", 1, 1, 1.0, 1.0))["best_peer"] is None


def test_a_wrong_answer_of_recfuse_ends_the_race(here: list[str]) -> None:
    with pytest.raises(WrongAnswerError, match="toy, toy: not 1"):
        raced(contender("recfuse", 2, 1, 1.0))


def test_a_wrong_answer_makes_the_command_fail(
    here: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = Toy(field_=(contender("recfuse", 2, 1, 1.0),))
    monkeypatch.setattr(run_module, "cases_of", lambda op, quick: [wrong])
    assert main_bench(["topk"], out_dir=tmp_path) == 1
    assert "wrong answer: toy, toy: not 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- one real run, in real processes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        tiny = {"topk": [TINY_TOPK], "fuse_topk": [TINY_FUSION]}
        patch.setattr(run_module, "cases_of", lambda op, quick: tiny[op])
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
    assert main(["fuse_topk", "--list"]) == 0
    text = capsys.readouterr().out
    for expected in ("q1024 n100000 d64+384+512 k100", "(quick)", "FAISS", "timed: index.topk"):
        assert expected in text


def test_answers_of_tensors_and_arrays_become_arrays() -> None:
    answer = ids_and_scores(([[1, 2]], [[0.5, 0.25]]))
    assert answer["ids"].shape == answer["scores"].shape == (1, 2)


# --- compare.py


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
