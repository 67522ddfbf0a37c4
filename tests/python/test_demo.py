"""The demo on a small cut of the credits inside the package, from events to page."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse.demo
from recfuse.demo import data as demo_data
from recfuse.demo import pipeline as demo_pipeline
from recfuse.demo import race as demo_race
from recfuse.demo.pipeline import Result, Stages, run_pipeline
from recfuse.demo.report import as_html
from recfuse.demo.text import as_text
from recfuse.errors import DatasetError


@pytest.fixture(scope="module", autouse=True)
def short_races():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_race, "_PAUSE", 0)
        patch.setattr(demo_race, "_ROUNDS", 1)
        patch.setattr(demo_pipeline, "_LARGE_CATALOGUE", 2000)
        yield


@pytest.fixture(scope="module")
def small() -> demo_data.DemoData:
    """The 700 most credited people."""
    data = demo_data.film_credits()
    counts = np.bincount(data.events.user_index)
    people = np.argsort(-counts, kind="stable")[:700]
    return replace(data, events=data.events.select(np.isin(data.events.user_index, people)))


@pytest.fixture(scope="module")
def result(small) -> Result:
    return run_pipeline(small, Stages(), num_threads=2, show_progress=False)


def test_the_fusion_is_compared_with_everything(result):
    models = [row["model"] for row in result.comparison.rows]
    assert models == ["popularity", "als", "neighbours", "attributes", "fusion"]
    ndcg = {row["model"]: row["ndcg"] for row in result.comparison.rows}
    assert ndcg["fusion"] > ndcg["popularity"]
    assert "by time" in result.split
    assert sum(result.weights.values()) == pytest.approx(1)


def test_lists_are_explained(result):
    assert len(result.people) == 3
    for item in (item for person in result.people for item in person.items):
        assert np.float32(sum(item.parts)) == pytest.approx(item.score, rel=1e-5)


def test_untouched_films_are_judged_by_content(result):
    behaviour = [result.modalities.index(m) for m in ("als", "neighbours", "popularity")]
    assert result.n_cold > 0 and result.cold.items
    assert all(item.parts[m] == 0 for item in result.cold.items for m in behaviour)


def test_text_and_page_say_the_same(result):
    text, page = as_text(result), as_html(result)
    for row in result.comparison.rows:
        assert f"{row['ndcg']:.4f}" in text and f"{row['ndcg']:.4f}" in page
    for name, weight in result.weights.items():
        assert re.search(rf"{name} +{weight:.3f}", text) and f"{weight:.3f}" in page
    assert result.split in text and html.escape(result.split) in page
    assert all(f"{s:.1f} s" in page for s in result.stages.seconds.values())


def test_the_page_needs_nothing_else(result):
    page = as_html(result)
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script", page)
    assert page.count("<div") == page.count("</div>")


def test_titles_are_escaped(result):
    person = replace(result.people[0], favourites=["<b>&"], label="<i>")
    page = as_html(replace(result, people=[person]))
    assert "&lt;b&gt;&amp;" in page and "<i>" not in page


def test_run_writes_the_report_and_says_what_it_leaves_out(small, tmp_path, monkeypatch, capsys):
    def unreachable() -> demo_data.DemoData:
        raise DatasetError("the registry cannot be reached")

    monkeypatch.setattr(demo_data, "movielens", unreachable)
    monkeypatch.setattr(demo_data, "film_credits", lambda: small)
    assert recfuse.demo.run(tmp_path / "out", num_threads=2) == 0
    out = capsys.readouterr().out
    assert "the registry cannot be reached" in out and "no text encoder" in out
    assert all(f"[{i}/7]" in out for i in range(1, 8))
    assert (tmp_path / "out" / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_the_race_refuses_other_scores(monkeypatch):
    items = {"a": np.eye(4, dtype=np.float32)}
    nothing = sp.csr_array((4, 4), dtype=np.float32)
    assert demo_race.race(items, items, {"a": 1.0}, 2, nothing).workload == (
        "4 queries, 4 films, dimensions a 4"
    )
    wrong = lambda *_, **__: (np.zeros((4, 2), np.int32), np.zeros((4, 2), np.float32))  # noqa: E731
    monkeypatch.setattr(recfuse.FusedIndex, "topk", wrong)
    with pytest.raises(RuntimeError, match="agree within"):
        demo_race.race(items, items, {"a": 1.0}, 2, nothing)


def test_an_enlarged_catalogue_begins_with_the_real_one():
    real = {"a": np.arange(6, dtype=np.float32).reshape(3, 2)}
    larger = demo_race.enlarged(real, 8)["a"]
    assert larger.shape == (8, 2) and larger.dtype == np.float32
    np.testing.assert_array_equal(larger[:3], real["a"])
    distance = np.linalg.norm(larger[3:] - real["a"][np.arange(3, 8) % 3], axis=1)
    lengths = np.linalg.norm(real["a"][np.arange(3, 8) % 3], axis=1)
    np.testing.assert_allclose(distance, lengths / 2, rtol=1e-5)
