"""Workloads of the benchmark: floors, judges, peers. Speed itself is not tested here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recfuse import _core
from recfuse.bench.case import Cost
from recfuse.bench.cases.als import Als
from recfuse.bench.cases.als_explicit import ExplicitAls
from recfuse.bench.cases.cosine_knn import CosineKnn
from recfuse.bench.cases.fuse_topk import FuseTopk
from recfuse.bench.cases.topk import Topk
from recfuse.bench.exclusions import draw_excluded, excluded_hits, excluded_items
from recfuse.bench.interactions import user_items
from recfuse.bench.roofline import Ceilings, Floor, floor, measure_ceilings

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
