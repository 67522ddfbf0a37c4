"""The page of quality shows what was measured; tuning goes on where it stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from recfuse.evaluation import ranking_metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "quality"
if not FOLDER.is_dir():
    pytest.skip(f"no {FOLDER}", allow_module_level=True)
sys.path.insert(0, str(FOLDER))
import contenders  # noqa: E402
import gowalla  # noqa: E402
import page  # noqa: E402
import search  # noqa: E402
import study  # noqa: E402

sys.path.remove(str(FOLDER))
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("quality-*.json"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_the_page_shows_the_results(file):
    found = json.loads(file.read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    shown = text.split(f"<!-- {found['data']} -->\n")[1].split(f"<!-- /{found['data']} -->")[0]
    assert shown == page.table(found)


@pytest.mark.parametrize("document", page.HEADLINES)
def test_the_readmes_show_the_results(document):
    readme = (ROOT / document).read_text(encoding="utf-8")
    shown = readme.split(page.README_MARKS[0])[1].split(page.README_MARKS[1])[0]
    by_name = {}
    for file in RESULTS:
        found = json.loads(file.read_text(encoding="utf-8"))
        by_name[found["data"]] = found
    assert shown == page.headline(by_name, document)


def test_parameters_are_kept_as_they_were():
    third = 1 / 3  # an ALS with rounded parameters finds other lists
    found = page.rounded({"a": {"params": {"x": third}, "value": third}, "weights": {"b": third}})
    assert found == {"a": {"params": {"x": third}, "value": 0.333333}, "weights": {"b": third}}


def test_the_metrics_are_those_of_lightgcn():
    """Recall and NDCG as the published program has them (utils.py of LightGCN-PyTorch)."""
    rng, k = np.random.default_rng(0), 20
    truth = (rng.random((40, 60)) < rng.random((40, 1))).astype(np.float32)
    truth[:, 0] = 1
    lists = np.stack([rng.permutation(60)[:k] for _ in truth])
    found = ranking_metrics(lists, sp.csr_array(truth), k=k)
    for user, (row, wanted) in enumerate(zip(lists, truth, strict=True)):
        right = wanted[row]
        ideal = np.zeros(k)
        ideal[: min(k, int(wanted.sum()))] = 1
        discount = 1 / np.log2(np.arange(2, k + 2))
        assert found.per_user["recall@20"][user] == pytest.approx(right.sum() / wanted.sum())
        assert found.per_user["ndcg@20"][user] == pytest.approx(
            (right * discount).sum() / (ideal * discount).sum()
        )


def suggest(trial):
    return {"x": trial.suggest_float("x", 0, 1)}


def objective(params):
    return params["x"] + params.get("factors", 0)


def test_tuning_goes_on_where_it_stopped(tmp_path):
    budget, calls = search.Budget(4, 1), []

    def counted(params):
        calls.append(params)
        return objective(params)

    whole = search.search("a", suggest, objective, search.Notes(tmp_path / "1"), budget=budget)
    notes = search.Notes(tmp_path / "2")
    for _ in range(3):  # stops after each trial
        notes = search.Notes(tmp_path / "2")

        def stopping(params, notes=notes):
            notes.deadline = -1.0
            return counted(params)

        with pytest.raises(search.OutOfTime):
            search.search("a", suggest, stopping, notes, budget=budget)
    again = search.search("a", suggest, counted, search.Notes(tmp_path / "2"), budget=budget)
    assert again == whole
    assert len(calls) == budget.trials == len(whole["trials"])  # none of them twice


def test_the_best_small_factorisations_are_grown(tmp_path):
    notes, budget = search.Notes(tmp_path / "notes"), search.Budget(5, 2)
    found = search.search("a", suggest, objective, notes, sizes=(8, 16, 32), budget=budget)
    at = [trial["params"]["factors"] for trial in found["trials"]]
    assert at == [8] * 5 + [16] * 2 + [32] * 2
    best = sorted((t["params"]["x"] for t in found["trials"][:5]), reverse=True)[:2]
    assert [t["params"]["x"] for t in found["trials"][5:]] == best * 2
    assert found["params"] == {"factors": 32, "x": best[0]}
    assert len(found["trials"]) == budget.trials


def test_the_validation_of_gowalla_is_what_comes_last(tmp_path, rng):
    lists = [rng.permutation(49)[: 10 * n] for n in (1, 2, 3)]
    empty = np.zeros(0, np.int32)
    (tmp_path / "gowalla").mkdir()
    np.savez(
        tmp_path / "gowalla" / "interactions.npz",
        train_user=np.repeat(np.arange(3, dtype=np.int32), [len(items) for items in lists]),
        train_item=np.concatenate([np.sort(items) for items in lists]).astype(np.int32),
        test_user=empty,
        test_item=empty,
        user_org_id=np.arange(3),
        item_org_id=np.arange(50),
    )
    # The file lacks some events, which come before all others, and has one that is not training's.
    lines = [f"{user} 49 {' '.join(map(str, own[3:]))}" for user, own in enumerate(lists)]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    parts = gowalla.parts_of(tmp_path, tmp_path / "train.txt")
    for user, own in enumerate(lists):
        assert sorted(parts.validation[[user]].indices) == sorted(own[-(user + 1) :])
    assert ((parts.fit + parts.validation) != parts.train).nnz == 0
    assert gowalla.parts_of(tmp_path, None).validation.nnz == 0


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_what_is_tried_after_the_search_wins_where_it_is_better(tmp_path, rng, monkeypatch, value):
    fit, later = (sp.csr_array((rng.random((30, 25)) < p).astype(np.float32)) for p in (0.3, 0.1))
    parts = study.Parts(fit, later, fit, later)
    field = [gowalla._adapted(c) for c in contenders.contenders()]
    contender = next(c for c in field if study.label(c) == "recfuse: item neighbours")
    further = {"k": 7, "asymmetry": 0.3}
    monkeypatch.setattr(gowalla, "FURTHER", {"recfuse: item neighbours": [further]})
    monkeypatch.setattr(gowalla, "score", lambda *_: {"ndcg@20": value})
    found = gowalla._tuned(contender, parts, search.Notes(tmp_path / "notes"))
    assert len(found["trials"]) == gowalla.BUDGET.trials + 1
    assert found["trials"][-1] == {"params": further, "value": value}
    best = max(found["trials"], key=lambda trial: trial["value"])
    assert (found["params"], found["validation"]) == (best["params"], best["value"])
    assert (found["params"] == further) == (value == 2.0)


def test_fitted_weights_are_used_again(tmp_path, rng):
    train, test = (sp.csr_array((rng.random((30, 25)) < p).astype(np.float32)) for p in (0.3, 0.1))
    parts = study.Parts(train, sp.csr_array(train.shape, dtype=np.float32), train, test)
    field = [c for c in contenders.contenders() if study.label(c) in gowalla.MEMBERS.values()]
    own = {"recfuse: ALS": {"factors": 4, "regularization": 0.01, "alpha": 1.0, "iterations": 3}}
    tuned = {study.label(c): {"params": own.get(study.label(c), {"k": 29})} for c in field}
    fitted = {"weights": {"als": 0.0, "neighbours": 0.0, "users": 1.0, "popularity": 0.0}}
    notes = search.Notes(tmp_path / "notes")
    result, weights = study.fused(
        "fused", field, tuned, parts, notes, members=gowalla.MEMBERS, fitted=fitted
    )
    users = next(c for c in field if c.name == "user neighbours")
    alone = study.judge([users], tuned, parts, notes)["recfuse: user neighbours"]
    assert weights == fitted
    assert result["ndcg@20"] == pytest.approx(alone["ndcg@20"], abs=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_the_metrics_are_those_of_irspack():
    irspack = pytest.importorskip("irspack")
    rng = np.random.default_rng(1)
    truth = sp.csr_matrix((rng.random((40, 60)) < 0.2).astype(np.float64))
    scores = rng.random(truth.shape)
    theirs = irspack.Evaluator(truth, cutoff=20).get_scores_from_score_matrix(scores, [20])
    ours = ranking_metrics(np.argsort(-scores, axis=1)[:, :20], sp.csr_array(truth), k=20)
    assert theirs["ndcg@20"] == pytest.approx(ours["ndcg@20"], abs=1e-12)
    assert theirs["recall@20"] == pytest.approx(ours["recall@20"], abs=1e-12)
