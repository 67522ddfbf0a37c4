"""A model in the ids of its users: what it translates, and that it looks through them once."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import recfuse
from recfuse import Interactions
from recfuse.models import labelled


@pytest.fixture
def model() -> recfuse.LabelledModel:
    events = Interactions.from_arrays(["ann", "ann", "bob", "bob"], ["茶", "tea", "茶", "rice"])
    return recfuse.LabelledModel(recfuse.ItemNeighbours(k=2)).fit(events)


def test_ids_are_looked_through_once(model, monkeypatch):
    looks = []
    places = labelled._places
    monkeypatch.setattr(labelled, "_places", lambda ids: looks.append(1) or places(ids))
    for _ in range(3):
        assert model.recommend(["bob", "ann"], k=1)[0].tolist() == [["tea"], ["rice"]]
    assert len(looks) == 1
    others = Interactions.from_arrays(["bob", "bob", "zoe", "zoe"], ["oil", "tea", "tea", "salt"])
    model.fit(others)
    assert model.recommend(["bob"], k=1)[0].tolist() == [["salt"]]
    assert len(looks) == 2
    with pytest.raises(KeyError, match="recommend: users must be known; got 'ann'"):
        model.recommend(["bob", "ann"])


def test_copies_do_without_what_is_made_again(model):
    model.recommend(["bob"])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert "_made" not in vars(other)
        assert other.recommend(["bob"], k=1)[0].tolist() == [["tea"]]


def test_ids_that_are_tuples(model):
    users = [("王", 1), ("王", 2), ("王", 2)]
    events = Interactions.from_arrays(users, [("a", 1), ("a", 1), ("b", 2)])
    items, scores = model.fit(events).recommend([("王", 1), ("王", 2)], k=2)
    assert items.tolist() == [[("b", 2), None], [None, None]]
    assert items.shape == scores.shape == (2, 2)
    assert np.isneginf(scores[1]).all()
