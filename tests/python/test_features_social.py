from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse.features import friends_taste, history_profiles


def reference(ties, history, steps=1):
    """Specify by dictionaries: the weighted mean over friends, again for each step."""
    n = len(ties)
    taste = [dict(enumerate(row)) for row in np.asarray(history, np.float64)]
    for _ in range(steps):
        spread = []
        for u in range(n):
            friends = {v: float(ties[u][v]) for v in range(n) if v != u and ties[u][v] > 0}
            total = sum(friends.values())
            spread.append(
                {
                    i: sum(s / total * taste[v][i] for v, s in friends.items()) if total else 0.0
                    for i in taste[u]
                }
            )
        taste = spread
    return np.array([list(row.values()) for row in taste])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_taste_is_the_mean_of_friends(rng, steps):
    ties = (rng.random((12, 12)) < 0.3) * rng.integers(1, 5, (12, 12))
    ties[5] = 0
    history = (rng.random((12, 7)) < 0.4) * rng.integers(1, 9, (12, 7))
    got = friends_taste(sp.csr_array(ties), sp.csr_array(history), steps=steps)
    assert got.dtype == np.float32 and got.has_sorted_indices
    np.testing.assert_allclose(got.toarray(), reference(ties, history, steps), rtol=1e-6)
    assert got[[5]].nnz == 0
    some = friends_taste(sp.csr_array(ties), sp.csr_array(history), users=[7, 5, 7], steps=steps)
    np.testing.assert_array_equal(some.toarray(), got.toarray()[[7, 5, 7]])


def test_a_row_of_equal_tastes_stays(rng):
    """Every row of weights sums to 1: friends who all say x give x."""
    ties = sp.csr_array(rng.random((9, 9)) + 0.1)
    same = sp.csr_array(np.tile([2.0, 5.0], (9, 1)))
    np.testing.assert_allclose(friends_taste(ties, same).toarray(), same.toarray(), rtol=1e-6)


def test_wrong_friends():
    likes = sp.csr_array(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"friends_taste: friends must be square; got shape"):
        friends_taste(sp.csr_array(np.ones((2, 3))), likes)
    with pytest.raises(ValueError, match=r"user_items must have one row per row of friends \(3\)"):
        friends_taste(sp.csr_array(np.ones((3, 3))), likes)
    with pytest.raises(ValueError, match="friends must be finite and not negative"):
        friends_taste(sp.csr_array(-np.ones((2, 2))), likes)
    with pytest.raises(IndexError, match=r"users must be in \[0, 2\); got 2"):
        friends_taste(sp.csr_array(np.ones((2, 2))), likes, users=[2])
    with pytest.raises(ValueError, match="steps must be an integer of at least 1; got 0"):
        friends_taste(sp.csr_array(np.ones((2, 2))), likes, steps=0)
    with pytest.raises(TypeError, match="friends must be a SciPy sparse"):
        friends_taste(np.ones((2, 2)), likes)


def test_friends_help_listeners_without_a_history(data_dir):
    """On last.fm, friends know better what somebody new listens to than the charts do."""
    data = np.load(data_dir / "lastfm-hetrec2011" / "lastfm.npz")
    people, user = np.unique(data["listen_user"], return_inverse=True)
    artists, artist = np.unique(data["listen_artist"], return_inverse=True)
    plays = sp.csr_array(
        (np.log1p(data["listen_count"]).astype(np.float32), (user, artist)),
        shape=(len(people), len(artists)),
    )
    both = np.isin(data["friend_a"], people) & np.isin(data["friend_b"], people)
    pair = [np.searchsorted(people, data[f"friend_{end}"][both]) for end in "ab"]
    friends = sp.csr_array((np.ones(both.sum(), np.float32), pair), shape=(len(people),) * 2)
    cold = np.random.default_rng(0).choice(len(people), 300, replace=False)
    known = plays.copy()
    known.data[np.isin(np.repeat(np.arange(len(people)), np.diff(plays.indptr)), cold)] = 0
    known.eliminate_zeros()

    def recall(scores):
        ids = np.argsort(-scores, axis=1, kind="stable")[:, :20]
        truth = [set(plays.indices[plays.indptr[u] : plays.indptr[u + 1]]) for u in cold]
        hits = [len(t & set(i)) for t, i in zip(truth, ids.tolist(), strict=True)]
        return np.mean([n / min(len(t), 20) for n, t in zip(hits, truth, strict=True)])

    taste = friends_taste(friends, known, users=cold)
    charts = np.tile(np.asarray((known > 0).sum(axis=0)).ravel(), (len(cold), 1)).astype(float)
    by_friends, by_charts = recall(taste.toarray()), recall(charts)
    assert by_friends > 1.3 * by_charts > 0.05

    # The same rows are histories: folded into a model, and as profiles of content.
    model = recfuse.AlternatingLeastSquares(factors=16, iterations=4, random_state=0).fit(known)
    folded = model.fold_in(taste) @ model.item_factors_.T
    assert recall(folded) > by_charts
    profiles = history_profiles(taste, {"als": model.item_factors_})["als"]
    assert profiles.shape == (300, 16)
    has_friends = np.diff(taste.indptr) > 0
    np.testing.assert_array_equal(profiles.any(axis=1), has_friends)


def series_of(items, alone=0):
    """A graph of items in fives, of which the last ones have no entry."""
    number = np.arange(items + alone) // 5
    together = (number[:, None] == number) & (np.arange(items + alone) < items)[:, None]
    return sp.csr_array((together & together.T).astype(np.float32))


def test_factors_of_a_graph_of_items_are_alike_where_items_go_together():
    graph = series_of(100, alone=3)
    related = recfuse.AlternatingLeastSquares(32, random_state=0).fit(graph).item_factors_
    assert not related[100:].any()
    ids, _ = recfuse.topk(related[:100], related, k=5, metric="cosine")
    assert (np.sort(ids) // 5 == np.arange(100)[:, None] // 5).all()


def test_relations_bring_the_next_volume_to_the_readers_of_a_series(rng):
    readers = np.arange(300) % 20  # each of a series, and of a few books by lot
    likes = np.kron(np.eye(20), np.ones(5))[readers] * (rng.random((300, 100)) < 0.7)
    likes = np.maximum(likes, rng.random((300, 100)) < 0.03)
    likes[:, 4::5] = 0  # the last volumes are new
    read = np.sort(likes.reshape(300, 20, 5).sum(axis=2))
    clear = read[:, -1] > read[:, -2]  # who has read most of one series
    related = recfuse.AlternatingLeastSquares(32, random_state=0).fit(series_of(100)).item_factors_
    weights = {"als": 0.5, "series": 0.5}
    model = recfuse.MultimodalRecommender(
        {"als": recfuse.AlternatingLeastSquares(16, random_state=0)}, weights=weights
    ).fit(sp.csr_array(likes), {"series": related})
    ids, _ = model.recommend(np.arange(300), k=1, allow=np.arange(4, 100, 5))
    most = likes.reshape(300, 20, 5).sum(axis=2).argmax(axis=1)
    assert clear.sum() > 200
    assert (ids[:, 0] // 5 == most)[clear].all()
