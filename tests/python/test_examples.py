"""The scenarios of examples/: each runs to its end on little data, and what it prints is so."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from recfuse import Interactions
from recfuse.evaluation import compare

FOLDER = Path(__file__).resolve().parents[2] / "examples"
FILMS = ("latest-small", "content-features")


@pytest.fixture(scope="module")
def example():
    """Return a function that imports a program of the folder by name."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))


@pytest.fixture
def events(rng):
    n = 400
    users, items = rng.integers(0, 20, n), rng.integers(0, 30, n)
    order = rng.permutation(n)
    made = Interactions.from_arrays(
        users, items, timestamps=order, user_labels=range(25), item_labels=range(30)
    )
    return made.deduplicate("first")


def test_newcomers_came_last_and_keep_their_first_events(example, events):
    established, split = example("shared").newcomers(events, share=0.2, n_known=3)
    assert len(established) + len(split.train) + len(split.test) == len(events)
    first = [events.timestamps[events.user_index == user].min() for user in range(20)]
    expected = set(np.argsort(first)[-4:].tolist())  # of those who came at all
    assert set(split.train.user_index.tolist()) == expected
    assert not expected & set(established.user_index.tolist())
    for user in expected:
        theirs = np.sort(events.timestamps[events.user_index == user])
        known = np.sort(split.train.timestamps[split.train.user_index == user])
        assert known.tolist() == theirs[:3].tolist()


def test_by_chance_only_candidates_are_listed(example):
    candidates = np.array([2, 3, 5, 7])
    recommend = example("shared").at_random(candidates)
    ids, scores = recommend(np.arange(50), 3)
    assert set(ids.ravel().tolist()) == set(candidates.tolist())
    assert (np.diff(scores, axis=1) < 0).all()
    assert all(len(set(row)) == 3 for row in ids.tolist())
    assert (ids == recommend(np.arange(50), 3)[0]).all()
    longer = recommend(np.arange(50), 6)[0]
    assert (np.sort(longer[:, :4], axis=1) == candidates).all() and (longer[:, 4:] == -1).all()


def test_gains_are_told_from_chance(example, events):
    """A model that knows the answer helps, its opposite harms, itself again is chance."""
    shared = example("shared")
    split = shared.newcomers(events, share=0.5)[1]
    truth = split.test.to_csr().toarray()

    def by(sign, wrong):
        def recommend(users, k, *, user_items):
            scores = sign * truth[users] + np.linspace(0, 0.5, 30)
            scores[:, wrong] += 9
            scores[user_items.toarray() > 0] = -np.inf
            ids = np.argsort(-scores, axis=1)[:, :k]
            return ids, np.take_along_axis(scores, ids, axis=1)

        return recommend

    half = np.arange(0, 30, 2)
    models = {
        "behaviour": by(1, half),
        "+ text": by(1, []),
        "+ noise": by(-1, []),
        "all": by(1, []),
    }
    comparisons = {"new people": compare(models, split, k=5)}
    found = shared.gains(comparisons, "behaviour", "ndcg@5")["new people"]
    verdicts = {model: shared.verdict(gain) for model, gain in found.items()}
    assert verdicts == {"+ text": "helps", "+ noise": "harms", "all": "helps"}
    table = shared.gain_table(comparisons, "behaviour", "ndcg@5")
    assert all(model in table for model in models) and "10 users" in table
    assert f"{found['+ text'].mean:+.4f}" in table
    said = shared.in_words(comparisons, "behaviour", "ndcg@5", combined="all")
    assert "+ text helps new people" in said and "+ noise helps nobody" in said
    assert "harms new people" in said
    again = compare({"a": models["behaviour"], "b": models["behaviour"]}, split, k=5)
    assert shared.verdict(again.difference("b", "a", "ndcg@5")) == "chance"


def needs(*packages):
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}: pip install 'recfuse[features,frames,plot]'")


def run(program, tmp_path, capsys):
    """Run a scenario on little data; return what was compared and what was printed."""
    plot = tmp_path / "plot.png"
    groups = program.main(["--small", "--plot", str(plot)])
    assert plot.read_bytes().startswith(b"\x89PNG")
    return groups, capsys.readouterr().out


def assert_complete(groups, printed, models):
    """Every group and every modality has its line, and each says what the numbers say."""
    for group, comparison in groups.items():
        assert list(comparison.results) == models
        assert f"{group} ({comparison.results[models[0]].n_users} users)" in printed
    assert printed.count("\n  + all of them  ") == len(groups)


def assert_printed(gains, printed):
    """The gain and interval of every model in every group stand in the table."""
    for group, by_model in gains.items():
        for model, gain in by_model.items():
            told = f"{gain.mean:+.4f}  [{gain.low:+.4f}, {gain.high:+.4f}]"
            assert told in printed, (group, model)


def test_books(example, tmp_path, capsys):
    needs("PIL", "librosa", "soundfile", "pandas", "sklearn", "matplotlib")
    books, shared = example("books"), example("shared")
    groups, printed = run(books, tmp_path, capsys)
    planted = ["+ text", "+ cover", "+ voice"]
    assert_complete(groups, printed, ["behaviour", *planted, "+ binding", "+ all of them"])
    found = shared.gains(groups, "behaviour", "ndcg@10")["new books"]
    for name in ("+ text", "+ all of them"):
        assert shared.verdict(found[name]) == "helps", name
    assert shared.verdict(found["+ binding"]) != "helps"
    assert groups["new books"].results["behaviour"].n_users >= 60
    assert_printed(shared.gains(groups, "behaviour", "ndcg@10"), printed)
    assert "book-3 without cover" in printed and "left out" not in printed


def test_the_shop_is_the_same_for_a_seed(example, tmp_path):
    pytest.importorskip("PIL", reason="pip install 'recfuse[features]'")
    books, said = example("books"), []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        books.make_shop(tmp_path / name, 12, 8, seed=3)
        said.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert said[0] == said[1] and len(said[0]["events.csv"].splitlines()) > 50


def test_readers_buy_nothing_twice_and_nothing_after_the_log_ends(example, rng):
    books = example("books")
    truth = books.Truth(rng.integers(0, 4, (40, 3)), rng.integers(0, 4, (30, 3)))
    rows = books.events_of(truth, rng)
    assert len({(reader, book) for reader, book, _, _ in rows}) == len(rows) > 300
    assert min(row[3] for row in rows) >= 0 and max(row[3] for row in rows) < 300 * 86_400


def test_a_group_of_nobody_is_left_out_and_that_is_said(example, events, capsys):
    shared = example("shared")
    outer = shared.newcomers(events, share=0.3)[1]
    protocol = shared.Protocol(outer.train, outer.train, outer, outer)
    recommend = shared.at_random(np.arange(30))

    class Model:
        def recommend(self, users, k, *, user_items=None, allow=None):
            return recommend(users, k)

        def recommend_new_users(self, user_items, k):
            return recommend(np.arange(user_items.shape[0]), k)

    models = {"behaviour": Model(), "other": Model()}
    found = shared.by_group(models, protocol, k=5, few=1, rare=0, item="films", event="views")
    assert list(found) == ["all people", "new people", "new films"]
    said = capsys.readouterr().out
    assert "people with less than 1 views: left out" in said
    assert "films with less than 0 views: left out" in said


def test_covers_readings_and_blurbs_show_what_was_planted(example, tmp_path):
    """The nearest other book by a modality shares its trait more often than chance would."""
    needs("PIL", "librosa", "soundfile", "pandas", "sklearn")
    books = example("books")
    truth = books.make_shop(tmp_path, 60, 5)
    content = books.encode(tmp_path)
    for column, name in enumerate(["text", "cover", "voice"]):
        here = np.flatnonzero(np.isfinite(content[name]).all(axis=1) & content[name].any(axis=1))
        x = content[name][here] - content[name][here].mean(axis=0)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        cosine = x @ x.T
        np.fill_diagonal(cosine, -2)
        trait = truth.books[here, column]
        assert np.mean(trait[cosine.argmax(axis=1)] == trait) > 0.6, name


def test_film(example, tmp_path, capsys, data_dir, monkeypatch):
    needs("pandas", "sklearn", "matplotlib")
    if not all((data_dir / f"movielens-{part}").exists() for part in FILMS):
        pytest.skip(f"no {FILMS} in {data_dir}")
    monkeypatch.setenv("RECFUSE_DATA", str(data_dir))
    film, shared = example("film"), example("shared")
    groups, printed = run(film, tmp_path, capsys)
    kinds = ["+ attributes", "+ text", "+ poster"]
    assert_complete(groups, printed, ["behaviour", *kinds, "+ all of them"])
    assert_printed(shared.gains(groups, "behaviour", "ndcg@20"), printed)
    assert groups["all people"].results["behaviour"]["ndcg@20"] > 0.02
