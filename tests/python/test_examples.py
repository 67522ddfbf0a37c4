"""The scenarios of examples/: each runs to its end on little data, and what it prints is so."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from recfuse import Interactions
from recfuse.evaluation import compare

FOLDER = Path(__file__).resolve().parents[2] / "examples"


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
        users, items, timestamps=order, user_labels=range(20), item_labels=range(30)
    )
    return made.deduplicate("first")


def test_newcomers_came_last_and_keep_their_first_events(example, events):
    established, split = example("shared").newcomers(events, share=0.2, n_known=3)
    assert len(established) + len(split.train) + len(split.test) == len(events)
    first = [events.timestamps[events.user_index == user].min() for user in range(20)]
    expected = set(np.argsort(first)[-4:].tolist())
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
